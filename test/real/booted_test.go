package real

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"otrproxy/test/need"
)

// A machine of its own, as far as systemd can tell: name spaces, with nothing on it but the
// units that are shipped. What it changes is on disks in memory, which end with it.
const bootScript = `set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/x/units/otrproxy.service.d /run/x/up /run/x/work /run/systemd
cp "$PROGRAM" /run/x/otrproxy
for u in service socket; do sed "s#/usr/bin/otrproxy#/run/x/otrproxy#" "$UNITS/otrproxy.$u" >/run/x/units/otrproxy.$u; done
printf '[Service]\nStandardOutput=append:/run/x/log\nStandardError=append:/run/x/log\nWatchdogSec=2\nTimeoutAbortSec=1\n' >/run/x/units/otrproxy.service.d/test.conf
printf '[Unit]\nDefaultDependencies=no\nRequires=otrproxy.socket otrproxy.service\n' >/run/x/units/test.target
for t in sysinit basic sockets multi-user network-online nss-lookup shutdown umount final timers paths slices local-fs swap; do printf '[Unit]\nDefaultDependencies=no\n' >/run/x/units/$t.target; done
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/x/up,workdir=/run/x/work /etc
mount -t tmpfs tmpfs /var/lib
echo 'otrproxy:x:992:992::/var/lib/otrproxy:/usr/sbin/nologin' >>/etc/passwd
echo 'otrproxy:x:992:' >>/etc/group
mkdir -p /etc/otrproxy
printf 'listen: ["127.0.0.1:5222"]\nstate: /var/lib/otrproxy\nconfine: require\n' >/etc/otrproxy/otrproxy.yaml
ip link set lo up
touch /run/x/console && mount --bind /run/x/console /dev/console
bash -c "$PROBE" >"$OUT" 2>&1 &
export container=test SYSTEMD_UNIT_PATH=/run/x/units
exec /lib/systemd/systemd --system --unit=test.target --log-target=null
`

// What is looked at from within.
const probeScript = `until_() { for _ in $(seq 300); do if eval "$1"; then return 0; fi; sleep 0.1; done; echo "waited in vain: $1"; cat /run/x/log; return 1; }
show() { systemctl show -P "$1" otrproxy.service; }
until_ '[ "$(show ActiveState 2>/dev/null)" = active ]' || exit
echo "status: $(show StatusText)"
pid=$(show MainPID)
grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/$pid/status | tr '\t' ' '
OTRPROXY_SOCKET=/var/lib/otrproxy/control.sock /run/x/otrproxy status
stat -c 'state: %a %U' /var/lib/otrproxy
systemctl reload otrproxy.service && until_ 'grep -q "configuration re-read" /run/x/log' && echo reloaded
fed=$(show WatchdogTimestampMonotonic)
until_ '[ "$(show WatchdogTimestampMonotonic)" != "$fed" ]' && echo fed
kill -STOP $pid
until_ '[ "$(show NRestarts)" = 1 ] && [ "$(show ActiveState)" = active ]' && echo "restarted: $([ "$(show MainPID)" != $pid ] && echo another)"
systemctl stop otrproxy.socket otrproxy.service && grep -q 'msg=stopping' /run/x/log && echo "stopped: $(show Result)"
echo the end
`

// The units as they are shipped, under systemd itself: started as a user without rights and
// confined once more, with the address that the socket unit has opened; reloaded, fed, given
// up and started again when it hangs, stopped.
func TestUnderSystemd(t *testing.T) {
	need.Program(t, "/lib/systemd/systemd", "unshare", "ip")
	if os.Geteuid() != 0 {
		need.Missing(t, "root, to start systemd in name spaces")
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	units, err := filepath.Abs(filepath.Dir(unitFile))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--pid", "--fork", "--mount", "--net", "--cgroup", "--uts", "--ipc", "--mount-proc", "--kill-child=KILL", "bash", "-c", bootScript)
	cmd.Env = append(os.Environ(), "PROGRAM="+binary, "UNITS="+units, "OUT="+out, "PROBE="+probeScript)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	said := func() string { b, _ := os.ReadFile(out); return string(b) }
	eventuallyWithin(t, "the machine to come to its end", 3*patience, func() bool {
		select {
		case err := <-ended:
			t.Fatalf("systemd did not stay up: %v\n%s", err, said())
		default:
		}
		return strings.Contains(said(), "the end\n") || strings.Contains(said(), "waited in vain")
	})
	cmd.Process.Kill()
	<-ended
	for _, want := range []string{"status: 0 connected\n", "Uid: 992 992 992 992\n", "CapEff: 0000000000000000\n", "CapBnd: 0000000000000000\n", "NoNewPrivs: 1\n", "Seccomp: 2\n",
		"\nConfined (require): no core dumps", "Landlock", "state: 700 otrproxy\n", "\nreloaded\n", "\nfed\n", "\nrestarted: another\n", "\nstopped: success\n"} {
		if !strings.Contains(said(), want) {
			t.Errorf("no %q", want)
		}
	}
	if t.Failed() {
		t.Log(said())
	}
	t.Logf("systemd: started, reloaded, fed, restarted when it hung, stopped")
}
