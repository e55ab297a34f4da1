# For interactive shells in whim's terminals; written anew at each start of the container.
#
# Marks where prompts begin and end, where output begins, and the exit status of each command (OSC 133), so that a terminal
# can jump between prompts. Keeps one history file for each terminal, and offers those of the others before it.

if [[ $- == *i* && -n ${WHIM_TERMINAL-} && -z ${__whim_terminal-} ]]; then
    __whim_terminal=$WHIM_TERMINAL

    __whim_histories=${XDG_STATE_HOME:-$HOME/.local/state}/whim/history
    if mkdir -p -- "$__whim_histories" 2> /dev/null; then
        HISTFILE=$__whim_histories/$__whim_terminal.bash
        HISTTIMEFORMAT=${HISTTIMEFORMAT-'%F %T '}
        shopt -s histappend
        for __whim_file in "$__whim_histories"/*.bash; do
            # Its own is read by the shell itself, last, and so is the nearest.
            [[ $__whim_file == "$HISTFILE" || ! -r $__whim_file ]] || history -r "$__whim_file"
        done
        unset __whim_file
    fi
    unset __whim_histories

    __whim_prompt() {
        local status=$?
        [[ -z ${__whim_prompted-} ]] || printf '\e]133;D;%s\e\\' "$status"
        __whim_prompted=1
        printf '\e]133;A\e\\'
        # Again and again, because other programs set the whole prompt.
        [[ $PS1 == *'133;B'* ]] || PS1+='\[\e]133;B\e\\\]'
        history -a
        # For prompts that show it.
        return "$status"
    }
    PROMPT_COMMAND=__whim_prompt${PROMPT_COMMAND:+;$PROMPT_COMMAND}
    PS0=${PS0-}'\e]133;C\e\\'
fi
