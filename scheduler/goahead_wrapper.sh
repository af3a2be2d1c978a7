# Waits for the go-ahead of the controller, then becomes the program given as arguments.
#
# Needs a POSIX shell and one of curl, wget (GNU, or BusyBox 1.34 and later), python3. Environment:
#   SDP_GO_AHEAD_URLS      where to ask, separated by blanks; all are tried in turn
#   SDP_GO_AHEAD_TOKEN     secret of this task; on no command line, removed before the program starts
#   SDP_GO_AHEAD_DEADLINE  seconds after which to give up
#   SDP_GO_AHEAD_CA        certificates (PEM, commas for line ends) of who may vouch for https:// controllers;
#                          empty: those that the image trusts
#   SDP_GO_AHEAD_UNVERIFIED  set: a client that cannot check certificates may ask https:// all the same
# The program finds the controller's answer in SDP_GO_AHEAD (one line of JSON).
# Exit status: 124 deadline, 125 nothing to ask with, 126 the controller says no; 128 + n on a signal.
token=$SDP_GO_AHEAD_TOKEN urls=$SDP_GO_AHEAD_URLS limit=${SDP_GO_AHEAD_DEADLINE:-3600}
ca=$SDP_GO_AHEAD_CA unverified=$SDP_GO_AHEAD_UNVERIFIED
unset SDP_GO_AHEAD_TOKEN SDP_GO_AHEAD_URLS SDP_GO_AHEAD_DEADLINE SDP_GO_AHEAD_CA SDP_GO_AHEAD_UNVERIFIED
umask_before=$(umask)
umask 077
# The sandbox is where answers come to, and what clients complain; or what else can be written to.
for folder in "${MESOS_SANDBOX:-.}" "${TMPDIR:-/tmp}" /dev/shm /tmp /run ''; do
    answer=$folder/.go-ahead.$$ complaint=$folder/.go-ahead.$$.err
    (set -C && : >"$answer" && : >"$complaint") 2>/dev/null && break
done
pending='' secret='' trust='' checks=yes encrypted=''
case $urls in *https://*) encrypted=yes ;; esac

say() { echo "go-ahead: $*" >&2; }

clean() { rm -f "$answer" "$complaint" ${secret:+"$secret"} ${trust:+"$trust"}; }
leave() {
    [ -z "$pending" ] || kill "$!" 2>/dev/null
    clean
    exit "$1"
}
# Questions are asked in the background: a shell runs its traps only between foreground commands, and
# as process 1 of a container it would not die of a signal without one.
trap 'leave 143' TERM
trap 'leave 130' INT
trap 'leave 129' HUP

# Monotonic seconds where the system has them: the clock on the wall may jump.
now() {
    if read -r up _ </proc/uptime; then seconds=${up%%.*}; else seconds=$(date +%s); fi 2>/dev/null
}

# Each becomes its client, so that the pid of the job is the client's. No command line shows the token.
# Proxies are for the program, not for the controller. Whoever redirects is no controller, and nobody is told the
# token who is none (but BusyBox' wget cannot be kept from following). After what is told comes its HTTP status,
# where the client tells it.
ask() { # at most 64 KiB of what is told
    ulimit -c 0
    ulimit -f 128
    $client "$1"
}
ask_curl() {
    exec curl -q --silent --show-error --noproxy '*' ${trust:+--cacert "$trust"} \
        --globoff --connect-timeout 5 --max-time 30 --write-out ' %{http_code}' --config - "$1" <<EOF
header = "Authorization: Bearer $token"
EOF
}
ask_wget() { # BusyBox' one takes a header from its command line only, a body from a file
    unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY
    exec $wget -O - --post-file="$secret" ${trust:+--ca-certificate="$trust"} "$1"
}
ask_python3() {
    exec python3 -I -c '
import socket, sys, urllib.error, urllib.request
url, trust = sys.argv[1:]
head = {"Authorization": "Bearer " + sys.stdin.read().strip()}
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None
ways = [urllib.request.ProxyHandler({}), Stay]
connect = socket.create_connection
def connect_soon(address, _, *rest):
    made = connect(address, 5, *rest)
    made.settimeout(30)
    return made
socket.create_connection = connect_soon
try:
    if url.startswith("https:"):
        import ssl
        ways.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=trust or None)))
    try:
        answer = urllib.request.build_opener(*ways).open(
            urllib.request.Request(url, headers=head), timeout=30
        )
    except urllib.error.HTTPError as error:
        answer = error
    print(answer.read(65536).decode(), answer.status, end="")
except Exception as error:
    sys.exit(f"python3: {error}")
' "$1" "$trust" <<EOF
$token
EOF
}

# Puts the token into a file, outside the sandbox, which has readers.
keep_secret() {
    for folder in "${TMPDIR:-/tmp}" /dev/shm /tmp /run; do
        secret=$folder/.sdp-go-ahead.$$
        (set -C && : >"$secret") 2>/dev/null || continue
        echo "token=$token" 2>/dev/null >"$secret" && return 0
        rm -f "$secret" # of a full disk
    done
    secret=''
    return 1
}
# Sets $wget to a wget with a time limit: not every build of BusyBox' has one of its own, and none can be told
# whom to trust.
find_wget() {
    command -v wget >/dev/null 2>&1 || return 1
    case $(wget --version 2>/dev/null)$(wget --help 2>&1) in
        *GNU*)
            wget='wget -nv --tries=1 --timeout=30 --connect-timeout=5 --max-redirect=0 --no-proxy'
            return
            ;;
        *-T\ SEC*--post-file* | *--post-file*-T\ SEC*) wget='wget -q -T 30' ;;
        *--post-file*)
            wget='wget -q'
            if command -v timeout >/dev/null 2>&1; then wget='timeout 30 wget -q'; fi
            ;;
        *) return 1 ;;
    esac
    checks=''
    case $(wget --help 2>&1) in
        *--no-check-certificate*) wget="$wget --no-check-certificate" ;;
    esac
}
# Sets $trust to a file of the certificates.
keep_trust() {
    trust=$answer.pem
    (
        IFS=,
        printf '%s\n' $ca
    ) >"$trust"
}
# Sets $why to what a client has said, or to an answer that lets nobody go.
read_complaint() {
    why=" ${line# }"
    case $line in *[![:print:]]*) why=' no text' ;; esac
    [ "$status" -ne 0 ] || return 0
    why=''
    while IFS= read -r line; do
        why="$why${line:+ $line}"
        [ "${#why}" -lt 300 ] || break
    done <"$complaint"
    why=${why%% after [0-9]*} # milliseconds, other ones each time
    why=${why%% More details here*}
}
# Asks whom it is given first from now on: another one may be a host that is down, which takes its time.
prefer() {
    while [ "${urls%% *}" != "$1" ]; do urls="${urls#* } ${urls%% *}"; done
}

if ! [ -e "$answer" ]; then
    say "there is no folder that can be written to: set TMPDIR"
    leave 125
elif command -v curl >/dev/null 2>&1; then
    client=ask_curl
elif command -v python3 >/dev/null 2>&1; then
    client=ask_python3
elif ! find_wget; then
    say "none of curl, python3, wget (GNU, or BusyBox 1.34 and later) is there to ask with"
    leave 125
elif [ -n "$encrypted" ] && [ -z "$checks$unverified" ]; then
    say "the controllers are asked over TLS, and BusyBox' wget cannot check their certificates:" \
        "put curl, python3 or GNU wget into the image (or start the controllers with --goahead-unverified)"
    leave 125
elif keep_secret; then
    client=ask_wget
else
    say "there is no folder for the file that wget needs: set TMPDIR"
    leave 125
fi
if [ -n "$ca" ] && [ -n "$encrypted" ] && [ -n "$checks" ]; then keep_trust; fi

now
deadline=$((seconds + limit)) pause=1 said=''
while :; do
    failed=yes troubles=''
    for url in $urls; do
        pending=yes
        ask "$url" >"$answer" 2>"$complaint" &
        wait "$!"
        status=$?
        pending=
        line=
        IFS= read -r line <"$answer"
        case $line in
            '{"verdict": "go"'*)
                clean
                umask "$umask_before"
                SDP_GO_AHEAD=$line
                export SDP_GO_AHEAD
                exec "$@"
                ;;
            '{"verdict": "denied"'* | '{"verdict": "gone"'*)
                say "the controller says: $line"
                leave 126
                ;;
            '{"verdict": "not yet"'* | ' 204'*) failed= ;;
        esac
        if [ -z "$failed" ]; then
            prefer "$url"
            break
        fi
        read_complaint
        why=$(printf '%.400s' "${why:- status $status of ${client#ask_}}")
        troubles="$troubles ${url%/tasks/*}:$why;"
    done
    if [ -n "$failed" ] && [ "$troubles" != "$said" ]; then # not at every try, for an hour
        said=$troubles
        [ -z "$said" ] || say "no answer yet:${said%;}"
    fi
    now
    if [ "$seconds" -ge "$deadline" ]; then
        say "no go-ahead within $limit s"
        leave 124
    fi
    if [ -n "$failed" ]; then
        pending=yes
        sleep "$pause" &
        wait "$!"
        pending=
        [ "$pause" -ge 8 ] || pause=$((pause * 2))
    else
        pause=1
    fi
done
