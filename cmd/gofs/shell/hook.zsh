# The prompt hook of gofs for zsh. It reads the version files that it finds
# from the working directory upwards with builtins alone, and calls gofs only
# when their names or contents differ from last time.
__gofs_hook() {
  emulate -L zsh
  setopt null_glob
  local f d sig
  local -a here
  if [[ $PWD != "$__gofs_pwd" ]]; then
    typeset -g __gofs_pwd=$PWD
    typeset -ga __gofs_files
    __gofs_files=()
    d=$PWD
    while :; do
      __gofs_files+=("${d%/}"/{go.work,go.mod,.go-version,.tool-versions,mise.toml,.mise.toml})
      [[ -n ${d%/} ]] || break
      d=${d%/*}
    done
    __gofs_files+=("${XDG_CONFIG_HOME:-$HOME/.config}/gofs/version" /etc/gofs/version)
  fi
  # With what makes them exported or not: gofs sees those that are.
  sig="$GOFS_VERSION${(t)GOFS_VERSION}|$GOFS_MOUNT${(t)GOFS_MOUNT}|$GOWORK${(t)GOWORK}"
  for f in $__gofs_files $GOWORK; do
    [[ -f $f && -r $f ]] || continue
    sig+="|$f|$(<$f)"
  done
  [[ -n $__gofs_wait ]] && here=($__gofs_wait/*)
  if [[ $sig != "$__gofs_sig" || "$here" != "$__gofs_here" ]]; then
    typeset -g __gofs_sig=$sig
    eval "$(@GOFS@ env --hook --shell zsh)"
    here=()
    [[ -n $__gofs_wait ]] && here=($__gofs_wait/*)
    typeset -g __gofs_here="$here"
  fi
}
typeset -ga precmd_functions
if (( ! ${precmd_functions[(I)__gofs_hook]} )); then
  precmd_functions=(__gofs_hook $precmd_functions)
fi
# Scripts of a login shell never see a prompt.
__gofs_hook
