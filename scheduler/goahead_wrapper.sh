# Waits for the go-ahead of the controller, then becomes the program given as arguments.
#
# Needs a POSIX shell and one of curl, wget (GNU, or BusyBox 1.34 and later), python3. Environment:
#   SDP_GO_AHEAD_URLS      where to ask, separated by blanks; all are tried in turn
#   SDP_GO_AHEAD_TOKEN     secret of this task; on no command line, removed before the program starts
#   SDP_GO_AHEAD_DEADLINE  seconds after which to give up
# The program finds the controller's answer in SDP_GO_AHEAD (one line of JSON).
# Exit status: 124 deadline, 125 nothing to ask with, 126 the controller says no; 128 + n on a signal.
token=$SDP_GO_AHEAD_TOKEN urls=$SDP_GO_AHEAD_URLS limit=${SDP_GO_AHEAD_DEADLINE:-3600}
unset SDP_GO_AHEAD_TOKEN SDP_GO_AHEAD_URLS SDP_GO_AHEAD_DEADLINE
umask_before=$(umask)
umask 077
answer=${MESOS_SANDBOX:-.}/.go-ahead.$$
pending='' secret=''

say() { echo "go-ahead: $*" >&2; }

clean() { rm -f "$answer" ${secret:+"$secret"}; }
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
# Proxies are for the program, not for the controller.
ask_curl() {
    exec curl -q --silent --noproxy '*' --max-time 60 --config - "$1" <<EOF
header = "Authorization: Bearer $token"
EOF
}
ask_wget() { # BusyBox' one takes a header from its command line only, a body from a file
    unset http_proxy HTTP_PROXY all_proxy ALL_PROXY
    exec $wget -q -O - --post-file="$secret" "$1"
}
ask_python3() {
    exec python3 -c '
import sys, urllib.error, urllib.request
head = {"Authorization": "Bearer " + sys.stdin.read().strip()}
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    answer = opener.open(urllib.request.Request(sys.argv[1], headers=head), timeout=60)
except urllib.error.HTTPError as error:
    answer = error
print(answer.read().decode(), end="")
' "$1" <<EOF
$token
EOF
}

# Puts the token into a file, outside the sandbox, which has readers.
keep_secret() {
    for folder in "${TMPDIR:-/tmp}" /dev/shm /tmp /run; do
        secret=$folder/.sdp-go-ahead.$$
        (set -C && echo "token=$token" >"$secret") 2>/dev/null && return 0
    done
    secret=''
    return 1
}
# Sets $wget to a wget with a time limit: not every build of BusyBox' has one of its own.
find_wget() {
    command -v wget >/dev/null 2>&1 || return 1
    case $(wget --version 2>/dev/null)$(wget --help 2>&1) in
        *GNU*) wget='wget --tries=1 --timeout=60' ;;
        *-T\ SEC*--post-file* | *--post-file*-T\ SEC*) wget='wget -T 60' ;;
        *--post-file*) if command -v timeout >/dev/null 2>&1; then wget='timeout 60 wget'; else wget=wget; fi ;;
        *) return 1 ;;
    esac
}

if command -v curl >/dev/null 2>&1; then
    client=ask_curl
elif command -v python3 >/dev/null 2>&1; then
    client=ask_python3
elif ! find_wget; then
    say "none of curl, python3, wget (GNU, or BusyBox 1.34 and later) is there to ask with"
    exit 125
elif keep_secret; then
    client=ask_wget
else
    say "there is no folder for the file that wget needs: set TMPDIR"
    exit 125
fi

now
deadline=$((seconds + limit)) pause=1
while :; do
    failed=yes
    for url in $urls; do
        pending=yes
        $client "$url" >"$answer" 2>/dev/null &
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
            '{"verdict": "not yet"'*) failed= ;;
            '') [ "$status" -ne 0 ] || failed= ;; # not yet, too
        esac
        [ -n "$failed" ] || break
    done
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
