//go:build linux

package real

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/test/need"
)

// The unit that is shipped, as systemd reads it.
const unitFile = "../../packaging/systemd/otrproxy.service"

// The worst that systemd may say of how exposed the service is, of 10.
const worstExposure = 1.5

// systemd finds nothing wrong with the units, and says how exposed the service is.
func TestUnits(t *testing.T) {
	need.Program(t, "systemd-analyze")
	dir := t.TempDir()
	for _, name := range []string{"otrproxy.service", "otrproxy.socket"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(unitFile), name))
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(string(b), "/usr/bin/otrproxy", binary)), 0o644)
	}
	service := filepath.Join(dir, "otrproxy.service")
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", service, filepath.Join(dir, "otrproxy.socket")).CombinedOutput(); err != nil || strings.Contains(string(out), "otrproxy") {
		t.Errorf("%v %s", err, out)
	}
	out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", service).CombinedOutput()
	m := regexp.MustCompile(`Overall exposure level for otrproxy.service: ([0-9.]+)`).FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("%v %s", err, out)
	}
	if exposure, err := strconv.ParseFloat(string(m[1]), 64); err != nil || exposure > worstExposure {
		t.Errorf("exposure %s, at most %v\n%s", m[1], worstExposure, out)
	}
	t.Logf("systemd: exposure %s of 10", m[1])
}

// What the unit takes away before the start is nothing that the program, its confinement,
// or what "notify" runs needs.
func TestUnitSystemCalls(t *testing.T) {
	const filterVar = "OTRPROXY_TEST_FILTER"
	if calls := os.Getenv(filterVar); calls != "" { // the process that becomes the service
		err := becomeService(strings.Fields(calls))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	need.Program(t, "systemd-analyze")
	told := filepath.Join(t.TempDir(), "told")
	dir := t.TempDir()
	conf := filepath.Join(dir, "otrproxy.yaml")
	ip := loopback(t)
	s, err := server.Start(server.Config{Domain: "example.org", Users: map[string]string{"alice": "a"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	os.WriteFile(conf, fmt.Appendf(nil, "state: %q\nlisten: [\"%s:5222\"]\nmetrics: \"%s:9469\"\nconfine: require\ndomains: {example.org: {connect: %q}}\nnotify: {command: [sh, -c, 'date >%s'], events: [server-refused]}\n", filepath.Join(dir, "state"), ip, ip, s.Addr(), told), 0o600)
	p := start(t, "otrproxy", []string{filterVar + "=" + strings.Join(unitSystemCalls(t), " "), filterVar + "_ARGS=run --config " + conf, "OTRPROXY_TEST_PROGRAM=" + binary}, "", os.Args[0], "-test.run=^"+t.Name()+"$")
	eventually(t, "the service to be ready under the unit's filter", func() bool { return strings.Contains(p.output(), "msg=ready") })
	if out := p.output(); !strings.Contains(out, "seccomp") || !strings.Contains(out, "no core dumps, no debugger") {
		t.Errorf("%s", out)
	}
	if _, err := client.Dial(t.Context(), client.Config{Addr: ip + ":5222", JID: "alice@example.org", Password: "a", Entry: client.STARTTLS}); err == nil {
		t.Error("a server nobody knows was accepted")
	}
	eventually(t, "the command of notify to be run", fileHas(told, "."))
	c, err := net.Dial("tcp", ip+":9469")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /metrics HTTP/1.0\r\n\r\n")
	if n, err := c.Read(make([]byte, 100)); n == 0 {
		t.Error(err)
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.done
	if !p.cmd.ProcessState.Success() {
		t.Errorf("%v\n%s", p.cmd.ProcessState, p.output())
	}
}

// unitSystemCalls are the calls that the unit allows, its groups taken apart.
func unitSystemCalls(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	var put func(name string, to bool)
	put = func(name string, to bool) {
		if !strings.HasPrefix(name, "@") {
			allowed[name] = to
			return
		}
		out, err := exec.Command("systemd-analyze", "syscall-filter", "--no-pager", name).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v %s", name, err, out)
		}
		for line := range strings.Lines(string(out)) {
			if w, ok := strings.CutPrefix(line, "    "); ok && !strings.HasPrefix(w, "#") {
				put(strings.TrimSpace(w), to)
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^SystemCallFilter=(~?)(.*)$`).FindAllStringSubmatch(string(b), -1) {
		for _, name := range strings.Fields(m[2]) {
			put(name, m[1] == "")
		}
	}
	put("@default", true) // always
	var names []string
	for name, yes := range allowed {
		if yes {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// becomeService filters the system calls as systemd would, and becomes the program.
func becomeService(calls []string) error {
	of, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	calls = slices.DeleteFunc(calls, func(name string) bool { _, ok := of.SyscallNames[name]; return !ok })
	policy := seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{{Names: calls, Action: seccomp.ActionAllow}}}
	if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy}); err != nil {
		return err
	}
	program := os.Getenv("OTRPROXY_TEST_PROGRAM")
	return syscall.Exec(program, append([]string{program}, strings.Fields(os.Getenv("OTRPROXY_TEST_FILTER_ARGS"))...), os.Environ())
}
