# A day's work with containers, as somebody types it, run by docker and by amphora: `day.txt` is what Docker printed.
# The arguments are the command to begin each line with. The image `day:1` is there, a busybox; the folder is an empty one.
set -u
step() { printf '== %s\n' "$1"; }
code() { printf '(%s)\n' "$?"; }
# Waits for what another process does; a machine may be slow.
await() { n=0; until "$@" >/dev/null 2>&1; do n=$((n + 1)); [ "$n" -lt 600 ] || { echo "never: $*"; return 1; }; sleep 0.1; done; }
host_tools="-v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro"
exec </dev/null

step 'build tools on a mounted checkout'
mkdir -p checkout/src
printf 'def main():\n    print("built", 6 * 7)\nmain()\n' >checkout/src/app.py
printf 'fn main() { println!("built {}", 6 * 7); }\n' >checkout/src/app.rs
printf 'console.log("built", 6 * 7);\n' >checkout/src/app.js
printf 'all: out/app.txt\nout/app.txt: src/app.py\n\tmkdir -p out\n\tcp src/app.py out/app.txt\n\techo made\n' >checkout/Makefile
"$@" run --rm --network none -v "$PWD/checkout:/w" -w /w day:1 sh -c 'ls src | sort; echo new >src/new; stat -c %a src/new'; code
cat checkout/src/new
for tool in 'python3 src/app.py' 'node src/app.js' 'make -s' 'rustc --version'; do
    [ -x "/usr/bin/${tool%% *}" ] || { echo "no ${tool%% *} here"; continue; }
    # shellcheck disable=SC2086
    "$@" run --rm --network none $host_tools -v "$PWD/checkout:/w" -w /w -e HOME=/tmp day:1 sh -c "$tool >/dev/null && echo ran"
    code
done
"$@" run --rm --network none --read-only -v "$PWD/checkout:/w:ro" day:1 sh -c 'echo x >/w/x'; code
"$@" run --rm --network none -u 1234:1234 --tmpfs /t:mode=1777 day:1 sh -c 'id -u; id -g; echo y >/t/y && cat /t/y'; code
printf 'A=1\n# no\nB=two words\n' >env
"$@" run --rm --network none --env-file env -e B=3 day:1 sh -c 'echo $A $B'; code

step 'a database with a volume'
"$@" volume create --label tier=back data
"$@" run -d --name db --network none -v data:/data -l tier=back day:1 \
    sh -c 'i=0; while [ $i -lt 5 ]; do echo row $i >>/data/table; i=$((i + 1)); done; echo ready; exec sleep 1000' >/dev/null; code
await sh -c "$* logs db | grep -q ready"
"$@" exec db sh -c 'wc -l </data/table'; code
"$@" cp db:/data/table backup-1; code
"$@" run --rm --network none --volumes-from db:ro -v "$PWD:/backup" day:1 tar -cf /backup/backup-2.tar -C /data table; code
tar -xOf backup-2.tar table | cmp - backup-1 && echo 'backups agree'
"$@" run --rm --network none --volumes-from db:ro day:1 sh -c 'echo x >/data/x'; code
"$@" exec db sh -c 'rm /data/table'; code
"$@" cp backup-1 db:/data/table; code
"$@" exec db tail -n 1 /data/table; code
"$@" volume rm data; code
"$@" ps --filter volume=data --filter label=tier=back --format '{{.Names}} {{.Label "tier"}}'
"$@" inspect -f '{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}' db

step 'logs, followed'
"$@" run -d --name web --network none day:1 sh -c 'trap "echo bye; exit 0" TERM; echo one; echo two >&2; while :; do sleep 0.1; done' >/dev/null
await sh -c "$* logs web 2>/dev/null | grep -q one"
"$@" logs -f web >followed 2>followed-err & follower=$!
await grep -q one followed
"$@" exec web sh -c 'echo three >/proc/1/fd/1'
await grep -q three followed
"$@" logs --tail 1 web
"$@" stop -t 20 web; code
wait "$follower"; code
cat followed; cat followed-err
"$@" wait web
"$@" ps -a --filter name=^web$ --filter exited=0 --format '{{.Names}}'

step 'a container repaired, committed and started again'
"$@" run -d --name app --network none day:1 sh -c 'until [ -e /etc/app.conf ]; do sleep 0.1; done; cat /etc/app.conf; exec sleep 1000' >/dev/null; code
"$@" exec app sh -c 'echo settings >/etc/app.conf'; code
await sh -c "$* logs app | grep -q settings"
"$@" diff app | sort
"$@" commit -c 'CMD ["cat", "/etc/app.conf"]' -c 'LABEL fixed=yes' app day:2 | cut -c 1-7; code
"$@" run --rm --network none day:2; code
"$@" inspect -f '{{.Config.Labels.fixed}} {{json .Config.Cmd}}' day:2
"$@" restart -t 0 app; code
await sh -c "$* logs app | grep -c settings | grep -q 2"
"$@" rename app app2; code
"$@" pause app2; code
"$@" inspect -f '{{.State.Status}}' app2
"$@" unpause app2; code
"$@" top app2 -o pid,args | tail -n 1 | sed 's/^ *[0-9]* *//'
"$@" exec -e X=1 -w /tmp -u 7 app2 sh -c 'echo $X $PWD $(id -u)'; code
"$@" exec app2 sh -c 'exit 9'; code
"$@" exec app2 no-such-program >/dev/null 2>&1; [ $? -ge 126 ] && echo 'no such program'
"$@" kill -s KILL app2; code
"$@" wait app2
"$@" inspect -f '{{.State.ExitCode}} {{.State.Running}} {{.RestartCount}} {{.Name}}' app2
"$@" start app2; code
"$@" rm app2; code
"$@" rm -f app2; code

step 'images'
"$@" tag day:2 registry.example/team/day:latest; code
"$@" save -o saved.tar day:2; code
"$@" rmi day:2; code
"$@" rmi registry.example/team/day >/dev/null; code
"$@" load -q -i saved.tar; code
"$@" images --format '{{.Repository}}:{{.Tag}}' | sort
"$@" run --rm --network none day:2; code
"$@" history -q --no-trunc day:2 | wc -l
"$@" create --name parts --network none day:2 >/dev/null; code
"$@" export parts | tar -xO etc/app.conf; code
"$@" cp parts:/etc/app.conf - | tar -xO; code
"$@" run --rm --network none --restart always day:1 true; code
"$@" run --name twice --network none day:1 true; code
"$@" run --name twice --network none day:1 true; code

step 'an evening'
"$@" stop -t 0 db >/dev/null; code
"$@" ps -a --format '{{.Names}} {{.State}}' | sort
"$@" container prune -f >/dev/null; code
"$@" ps -aq
"$@" volume ls -q
"$@" volume rm data; code
"$@" rmi -f day:2 >/dev/null; code
"$@" images -q day:2
