# The prompt hook of gofs for fish. It reads the version files that it finds
# from the working directory upwards with builtins alone, and calls gofs only
# when their names or contents differ from last time.
function __gofs_hook --on-event fish_prompt
    if test "$PWD" != "$__gofs_pwd"
        set -g __gofs_pwd $PWD
        set -l dirs ""
        set -l base ""
        for part in (string split --no-empty / -- $PWD)
            set base $base/$part
            set -a dirs $base
        end
        set -g __gofs_files $dirs/{go.work,go.mod,.go-version,.tool-versions,mise.toml,.mise.toml}
        set -l config "$XDG_CONFIG_HOME"
        test -n "$config"; or set config $HOME/.config
        set -a __gofs_files $config/gofs/version /etc/gofs/version
    end
    # Those that are exported: gofs sees no others.
    set -l sig
    for v in GOFS_VERSION GOFS_MOUNT GOWORK
        set -qx $v; and set -a sig $v $$v
    end
    for f in (path filter --type=file --perm=read -- $__gofs_files $GOWORK)
        read --local --null text <$f
        set -a sig $f $text
    end
    set -l here
    test -n "$__gofs_wait"; and set here $__gofs_wait/*
    if test "$sig" != "$__gofs_sig" -o "$here" != "$__gofs_here"
        set -g __gofs_sig "$sig"
        @GOFS@ env --hook --shell fish | source
        set here
        test -n "$__gofs_wait"; and set here $__gofs_wait/*
        set -g __gofs_here "$here"
    end
end
# Scripts of a login shell never see a prompt.
__gofs_hook
