# Every shell script sources this file first: strict mode, --help, and the project as the current folder.
#
# The comment at the top of a script is its help. The first line of it, "Usage: …", names every option, and has a word
# in capitals if the script takes anything else: whatever is not named there is refused.
set -eu
{ read -r shebang && read -r hash usage; } <"$0"

refuse() {
    echo "muster: $1. $usage" >&2
    exit 2
}

for argument; do
    case $argument in
    -h | --help)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit
        ;;
    --) break ;;
    -*) case $usage in *"[${argument%%=*}"[]\ ]*) ;; *) refuse "unknown option $argument" ;; esac ;;
    *) case ${usage#Usage:} in *[[:upper:]]*) ;; *) refuse "unknown argument $argument" ;; esac ;;
    esac
done

here=$(pwd) # the caller's folder, which relative file names refer to
cd -- "$(dirname -- "$0")/.."
# uv trusts the certificates of the system, as pip does: a company's registry may have one of its own.
export UV_SYSTEM_CERTS=true
