package real

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"otrproxy/proxy/control"
	"otrproxy/test/need"
)

// A login is what came of one client's.
type login struct {
	client, server, version string // the server's TLS
	enrolled                bool
	control.SessionStatus
}

func (l login) String() string {
	how := "PLAIN"
	if l.enrolled {
		how = "enrolled"
	}
	return fmt.Sprintf("%-8s | %-7s | %-8s | %-12s | %-37s | %-9s | %s", l.server, l.version, how, l.client, l.Login, l.Entry, l.SASL)
}

// A visitor is a person's own client, that logs in to the proxy and does nothing more.
type visitor func(t *testing.T, d *desk, jid string) (stop func())

// A desk is where graphical clients run: a screen and a bus.
type desk struct {
	h      *household
	domain string
	env    []string // of the screen and the bus; nil before somebody needs them
}

// graphical starts the screen and the bus.
func (d *desk) graphical(t *testing.T) []string {
	t.Helper()
	if d.env == nil {
		d.env = startDesktop(t, t.TempDir())
	}
	return d.env
}

func (d *desk) host(t *testing.T) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(d.h.addr)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// files writes files into a directory of their own.
func files(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o700)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func ends(p *process) func() { return func() { p.kill(syscall.SIGKILL) } }

// visitors are the clients, in the order of the table.
var visitors = []struct {
	name  string
	start visitor
}{
	{"slixmpp", func(t *testing.T, d *desk, jid string) func() {
		return ends(startSlixmpp(t, jid, d.h.addr, "starttls").process)
	}},
	{"go-sendxmpp", func(t *testing.T, d *desk, jid string) func() {
		goSendxmpp(t, jid, d.h.addr, "nobody@"+d.domain, "hello")
		return func() {}
	}},
	{"mcabber", func(t *testing.T, d *desk, jid string) func() {
		need.Program(t, "mcabber")
		host, port := d.host(t)
		dir := files(t, map[string]string{"rc": fmt.Sprintf("set jid = %s\nset password = secret\nset server = %s\nset port = %s\nset tls = 1\nset ssl_ignore_checks = 1\nset resource = mcabber\nset beep_on_message = 0\n", jid, host, port)})
		return ends(startOnTerminal(t, "mcabber", []string{"TERM=xterm-256color", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "HOME=" + dir}, "mcabber", "-f", filepath.Join(dir, "rc")))
	}},
	{"Profanity", func(t *testing.T, d *desk, jid string) func() {
		need.Program(t, "profanity")
		host, port := d.host(t)
		dir := files(t, map[string]string{
			"config/profanity/profrc": "[connection]\naccount=" + jid + "\n[ui]\nsplash=false\n",
			"data/profanity/accounts": fmt.Sprintf("[%s]\nenabled=true\njid=%s\nserver=%s\nport=%s\nresource=profanity\npassword=secret\ntls.policy=trust\n", jid, jid, host, port),
		})
		return ends(startOnTerminal(t, "profanity", []string{"TERM=xterm", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "HOME=" + dir, "XDG_CONFIG_HOME=" + dir + "/config", "XDG_DATA_HOME=" + dir + "/data"}, "profanity"))
	}},
	{"Pidgin", func(t *testing.T, d *desk, jid string) func() {
		need.Program(t, "pidgin", "Xvfb", "dbus-daemon")
		host, port := d.host(t)
		certs := d.shown(t)
		dir := files(t, map[string]string{
			"accounts.xml": `<?xml version='1.0' encoding='UTF-8' ?><account version='1.0'><account><protocol>prpl-jabber</protocol><name>` + jid + `/pidgin</name><password>secret</password>
<settings><setting name='port' type='int'>` + port + `</setting><setting name='connect_server' type='string'>` + host + `</setting><setting name='connection_security' type='string'>require_tls</setting></settings>
<settings ui='gtk-gaim'><setting name='auto-login' type='bool'>1</setting></settings></account></account>`,
			"prefs.xml":                               `<?xml version='1.0' encoding='UTF-8' ?><pref version='1' name='/'><pref name='purple'><pref name='savedstatus'><pref name='startup_current_status' type='bool' value='1'/></pref></pref></pref>`,
			"certificates/x509/tls_peers/" + host:     certs,
			"certificates/x509/tls_peers/" + d.domain: certs,
		})
		return ends(start(t, "pidgin", append(d.graphical(t), "HOME="+dir), dir, "pidgin", "-m", "-c", dir))
	}},
	{"Gajim", func(t *testing.T, d *desk, jid string) func() {
		need.Program(t, "gajim", "Xvfb", "dbus-daemon")
		host, port := d.host(t)
		dir := files(t, map[string]string{"shown.pem": d.shown(t)})
		script, _ := filepath.Abs("gajim_client.py")
		return ends(start(t, "gajim", append(d.graphical(t), "HOME="+dir), dir, need.Python, script, dir+"/gajim", jid, "secret", host, port, filepath.Join(dir, "shown.pem")))
	}},
}

// shown is the certificate that clients are shown, as Pidgin keeps what it trusts.
func (d *desk) shown(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.h.state, "certs", d.domain+".pem")) // kept since the first login
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := bytes.Cut(b, []byte("-----END CERTIFICATE-----\n"))
	return string(first) + "-----END CERTIFICATE-----\n"
}

// begins is a line of the log about a session that has begun.
var begins = regexp.MustCompile(`msg="session begins" account=(\S+) entry=("[^"]*"|\S+) login=("[^"]*"|\S+) upstream=("[^"]*"|\S+) sasl=("[^"]*"|\S+)`)

// Every client logs in by what it has, to every server by the best that has: with its
// password, and as an enrolled account by proving it.
func TestLogins(t *testing.T) {
	var table []login
	for _, server := range []struct {
		name, version, plus string
		start               func(*testing.T) *xmppServer
	}{
		{"Prosody", "TLS 1.2", "SCRAM-SHA-1-PLUS tls-unique", func(t *testing.T) *xmppServer {
			return startProsodyWith(t, "starttls", `protocol = "tlsv1_2", `)
		}},
		{"Prosody", "TLS 1.3", "SCRAM-SHA-1", func(t *testing.T) *xmppServer { return startProsody(t, "starttls") }},
		{"ejabberd", "TLS 1.2", "SCRAM-SHA-1-PLUS tls-unique", func(t *testing.T) *xmppServer {
			return startEjabberdWith(t, "starttls", `, protocol_options: [ "no_tlsv1_3" ]`)
		}},
		{"ejabberd", "TLS 1.3", "SCRAM-SHA-1", func(t *testing.T) *xmppServer { return startEjabberd(t, "starttls") }},
	} {
		t.Run(server.name+" "+server.version, func(t *testing.T) {
			s := server.start(t)
			h := startOTRProxy(t, s, "# jids in the log\n")
			d := &desk{h: h, domain: s.domain}
			for _, enrolled := range []bool{false, true} {
				if enrolled {
					for _, v := range visitors {
						d.enrol(t, account(v.name, s))
					}
				} else {
					for _, v := range visitors {
						s.register(t, account(v.name, nil))
					}
				}
				for _, v := range visitors {
					before := len(h.output())
					stop := v.start(t, d, account(v.name, s))
					at := ""
					eventually(t, v.name+" to log in", func() bool {
						for _, m := range begins.FindAllStringSubmatch(h.output()[before:], -1) {
							if m[1] == account(v.name, s) {
								at = m[0]
							}
						}
						return at != ""
					})
					m := begins.FindStringSubmatch(at)
					l := login{client: v.name, server: server.name, version: server.version, enrolled: enrolled}
					l.Entry, l.Login, l.UpstreamTLS, l.SASL = bare(m[2]), bare(m[3]), bare(m[4]), bare(m[5])
					stop()
					table = append(table, l)
					if l.UpstreamTLS != server.version || l.SASL != server.plus {
						t.Errorf("%s: upstream by %s over %s", v.name, l.SASL, l.UpstreamTLS)
					}
					if !enrolled && l.Login != "PLAIN" {
						t.Errorf("%s: %s, without being enrolled", v.name, l.Login)
					}
				}
			}
		})
	}
	t.Log("logins: server   | TLS     | account  | client       | here by                               | entry     | upstream by")
	for _, l := range table {
		t.Log("logins: " + l.String())
	}
	// Those that prefer it to PLAIN. slixmpp would, but knows only a binding that TLS 1.3 has
	// not got, and goes on with PLAIN then.
	for _, name := range []string{"Pidgin", "Gajim", "Profanity"} {
		if !slices.ContainsFunc(table, func(l login) bool { return l.client == name && strings.HasPrefix(l.Login, "SCRAM-") }) {
			t.Errorf("%s never proved its password", name)
		}
	}
}

func bare(s string) string { return strings.Trim(s, `"`) }

// account is a client's, with its domain where a server is given.
func account(client string, s *xmppServer) string {
	user := "alice-" + strings.ToLower(client)
	if s == nil {
		return user
	}
	return user + "@" + s.domain
}

func (d *desk) enrol(t *testing.T, jid string) {
	t.Helper()
	cmd := exec.Command(binary, "login", "enroll", jid, "--config", d.h.conf)
	cmd.Stdin = strings.NewReader("secret\n")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "SCRAM-SHA-1") {
		t.Fatalf("enrolling %s: %v\n%s", jid, err, out)
	}
}
