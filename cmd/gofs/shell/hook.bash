# The prompt hook of gofs for bash. It reads the version files that it finds
# from the working directory upwards with builtins alone, and calls gofs only
# when their names or contents differ from last time.
__gofs_hook() {
  local status=$? LC_ALL=C f text sig
  if [[ $PWD != "${__gofs_pwd-}" ]]; then
    __gofs_pwd=$PWD
    __gofs_files=()
    local d=$PWD
    while :; do
      __gofs_files+=("${d%/}"/{go.work,go.mod,.go-version,.tool-versions,mise.toml,.mise.toml})
      [[ ${d%/} ]] || break
      d=${d%/*}
    done
    __gofs_files+=("${XDG_CONFIG_HOME:-$HOME/.config}/gofs/version" /etc/gofs/version)
  fi
  # With what makes them exported or not: gofs sees those that are.
  sig="${GOFS_VERSION+${GOFS_VERSION@A}}|${GOFS_MOUNT+${GOFS_MOUNT@A}}|${GOWORK+${GOWORK@A}}"
  for f in "${__gofs_files[@]}" ${GOWORK:+"$GOWORK"}; do
    [[ -f $f ]] || continue
    text=
    { IFS= read -r -d '' -n 16384 text < "$f"; } 2>/dev/null
    sig+="|$f|$text"
  done
  local here=(${__gofs_wait:+"$__gofs_wait"/*})
  if [[ $sig != "${__gofs_sig-}" || ${here[*]-} != "${__gofs_here-}" ]]; then
    __gofs_sig=$sig
    eval "$(@GOFS@ env --hook --shell bash)"
    here=(${__gofs_wait:+"$__gofs_wait"/*})
    __gofs_here=${here[*]-}
  fi
  return $status
}
if [[ ${PROMPT_COMMAND[*]-} != *__gofs_hook* ]]; then
  PROMPT_COMMAND="__gofs_hook${PROMPT_COMMAND:+;$PROMPT_COMMAND}"
fi
# Scripts of a login shell never see a prompt.
__gofs_hook
