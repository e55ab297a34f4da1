# For interactive shells in whim's terminals; written anew at each start of the container. The same for zsh as
# integration.bash is for bash, with the same files.

if [[ -o interactive && -n ${WHIM_TERMINAL-} && -z ${__whim_terminal-} ]]; then
    __whim_terminal=$WHIM_TERMINAL

    () {
        local histories=${XDG_STATE_HOME:-$HOME/.local/state}/whim/history file
        mkdir -p -- $histories 2> /dev/null || return
        HISTFILE=$histories/$__whim_terminal.zsh
        # For the time of each command.
        if zmodload zsh/datetime 2> /dev/null; then
            __whim_commands=$histories/$__whim_terminal.commands
            # For its owner alone, as the history is.
            (umask 077 && : >> $__whim_commands)
        fi
        (( HISTSIZE >= 1000 )) || HISTSIZE=10000
        (( SAVEHIST >= 1000 )) || SAVEHIST=10000
        setopt extended_history inc_append_history
        for file in $histories/*.zsh(N); do
            # Its own is read by the shell itself, last, and so is the nearest.
            [[ $file == $HISTFILE ]] || fc -R $file
        done
    }

    # A field of a line, in REPLY.
    __whim_field() {
        REPLY=${1//\\/\\\\}
        REPLY=${REPLY//$'\t'/\\t}
        REPLY=${REPLY//$'\n'/\\n}
        REPLY=${REPLY//$'\r'/\\r}
    }

    # The command that just ended.
    __whim_record() {
        emulate -L zsh
        local REPLY directory
        local -i took=$(( EPOCHREALTIME * 1000000 - __whim_began ))
        __whim_field "$__whim_directory"
        directory=$REPLY
        __whim_field "$__whim_line"
        printf '1\t%s\t%s\t%s\t%s\t%s\n' $__whim_began $took $1 "$directory" "$REPLY" >> $__whim_commands
    }

    __whim_precmd() {
        local code=$?
        [[ -z ${__whim_prompted-} ]] || printf '\e]133;D;%s\e\\' $code
        [[ -z ${__whim_line-} ]] || __whim_record $code 2> /dev/null
        __whim_line=
        __whim_prompted=1
        printf '\e]133;A\e\\'
        # Again and again, because other programs set the whole prompt.
        [[ $PS1 == *'133;B'* ]] || PS1+=$'%{\e]133;B\e\\%}'
    }
    __whim_preexec() {
        # What the shell keeps out of its history is kept out of ours, too.
        if [[ -n ${__whim_commands-} ]] && ! [[ -o hist_ignore_space && $1 == ' '* ]]; then
            typeset -gi __whim_began=$(( EPOCHREALTIME * 1000000 ))
            __whim_directory=$PWD
            __whim_line=$1
        fi
        printf '\e]133;C\e\\'
    }
    autoload -Uz add-zsh-hook
    # First among the hooks, so that the status is the command's.
    precmd_functions=(__whim_precmd $precmd_functions)
    add-zsh-hook preexec __whim_preexec
fi
