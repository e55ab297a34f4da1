# For interactive shells in whim's terminals; written anew at each start of the container.
#
# Marks where prompts begin and end, where output begins, and the exit status of each command (OSC 133), so that a terminal
# can jump between prompts. Keeps one history file for each terminal, and offers those of the others before it. Beside it a
# file for `whim search`, one line for each command that ended, only appended to:
#   1 <tab> began, microseconds <tab> took, microseconds <tab> exit status <tab> directory <tab> command
# What the shell keeps out of its history (a leading blank, HISTIGNORE) is kept out there, too.

if [[ $- == *i* && -n ${WHIM_TERMINAL-} && -z ${__whim_terminal-} ]]; then
    __whim_terminal=$WHIM_TERMINAL

    __whim_histories=${XDG_STATE_HOME:-$HOME/.local/state}/whim/history
    __whim_commands=
    if mkdir -p -- "$__whim_histories" 2> /dev/null; then
        HISTFILE=$__whim_histories/$__whim_terminal.bash
        HISTTIMEFORMAT=${HISTTIMEFORMAT-'%F %T '}
        shopt -s histappend
        # A command that is given again runs again: its time and status are of interest.
        HISTCONTROL=:${HISTCONTROL-}:
        HISTCONTROL=${HISTCONTROL//:ignoreboth:/:ignorespace:}
        HISTCONTROL=${HISTCONTROL//:ignoredups:/:}
        HISTCONTROL=${HISTCONTROL//:erasedups:/:}
        HISTCONTROL=${HISTCONTROL#:}
        HISTCONTROL=${HISTCONTROL%:}
        for __whim_file in "$__whim_histories"/*.bash; do
            # Its own is read by the shell itself, last, and so is the nearest.
            [[ $__whim_file == "$HISTFILE" || ! -r $__whim_file ]] || history -r "$__whim_file"
        done
        unset __whim_file
        __whim_commands=$__whim_histories/$__whim_terminal.commands
        # For its owner alone, as the history is.
        (umask 077 && : >> "$__whim_commands")
    fi
    unset __whim_histories

    # A field of a line, in REPLY.
    __whim_field() {
        REPLY=${1//\\/\\\\}
        REPLY=${REPLY//$'\t'/\\t}
        REPLY=${REPLY//$'\n'/\\n}
        REPLY=${REPLY//$'\r'/\\r}
    }

    # The command that just ended, if one did and the history has it.
    __whim_record() {
        local ended=${EPOCHREALTIME//[!0-9]/} began=$__whim_began took= directory REPLY
        [[ $(HISTTIMEFORMAT= builtin history 1) =~ ^\ *([0-9]+)[*\ ]\ (.*)$ ]] || return
        [[ ${BASH_REMATCH[1]} != "${__whim_number-}" ]] || return
        __whim_number=${BASH_REMATCH[1]}
        # At the first prompt it is of a shell before.
        [[ -n $began ]] || return
        __whim_field "$__whim_directory"
        directory=$REPLY
        __whim_field "${BASH_REMATCH[2]}"
        # Without a clock of microseconds (bash before 5) the time of its end must do.
        [[ -n $ended ]] && took=$((ended - began)) || printf -v began '%(%s)T000000' -1
        printf '1\t%s\t%s\t%s\t%s\t%s\n' "$began" "$took" "$1" "$directory" "$REPLY" >> "$__whim_commands"
    }

    __whim_prompt() {
        local status=$?
        [[ -z ${__whim_prompted-} ]] || printf '\e]133;D;%s\e\\' "$status"
        if [[ -n $__whim_commands && ( -n $__whim_began || -z ${__whim_prompted-} ) ]]; then
            __whim_record "$status" 2> /dev/null
        fi
        __whim_prompted=1
        __whim_began=
        __whim_directory=$PWD
        printf '\e]133;A\e\\'
        # Again and again, because other programs set the whole prompt.
        [[ $PS1 == *'133;B'* ]] || PS1+='\[\e]133;B\e\\\]'
        history -a
        # For prompts that show it.
        return "$status"
    }
    __whim_began=
    PROMPT_COMMAND=__whim_prompt${PROMPT_COMMAND:+;$PROMPT_COMMAND}
    # Expanded when a command was read and before it runs, in this very shell: the first part notes the time and is empty.
    PS0='${__whim_terminal:0:$((__whim_began=${EPOCHREALTIME//[!0-9]/}+0,0))}'${PS0-}'\e]133;C\e\\'
fi
