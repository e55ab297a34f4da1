# For interactive shells in whim's terminals; written anew at each start of the container. The same for zsh as
# integration.bash is for bash.

if [[ -o interactive && -n ${WHIM_TERMINAL-} && -z ${__whim_terminal-} ]]; then
    __whim_terminal=$WHIM_TERMINAL

    () {
        local histories=${XDG_STATE_HOME:-$HOME/.local/state}/whim/history file
        mkdir -p -- $histories 2> /dev/null || return
        HISTFILE=$histories/$__whim_terminal.zsh
        (( HISTSIZE >= 1000 )) || HISTSIZE=10000
        (( SAVEHIST >= 1000 )) || SAVEHIST=10000
        setopt extended_history inc_append_history
        for file in $histories/*.zsh(N); do
            # Its own is read by the shell itself, last, and so is the nearest.
            [[ $file == $HISTFILE ]] || fc -R $file
        done
    }

    __whim_precmd() {
        local code=$?
        [[ -z ${__whim_prompted-} ]] || printf '\e]133;D;%s\e\\' $code
        __whim_prompted=1
        printf '\e]133;A\e\\'
        # Again and again, because other programs set the whole prompt.
        [[ $PS1 == *'133;B'* ]] || PS1+=$'%{\e]133;B\e\\%}'
    }
    __whim_preexec() {
        printf '\e]133;C\e\\'
    }
    autoload -Uz add-zsh-hook
    # First among the hooks, so that the status is the command's.
    precmd_functions=(__whim_precmd $precmd_functions)
    add-zsh-hook preexec __whim_preexec
fi
