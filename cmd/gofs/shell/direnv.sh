# use gofs [VERSION] for direnv, see direnv-stdlib(1).
use_gofs() {
  local d=$PWD
  while [[ -n ${d%/} ]]; do
    watch_file "$d"/{go.work,go.mod,.go-version,.tool-versions,mise.toml,.mise.toml}
    d=${d%/*}
  done
  eval "$(@GOFS@ env --shell bash "$@")"
}
