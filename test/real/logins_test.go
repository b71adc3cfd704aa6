//go:build linux

package real

import (
	"cmp"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"otrproxy/proxy/control"
	"otrproxy/test/need"
)

// A login is what came of one client's.
type login struct {
	server, version, account, client string // version is of the server's TLS
	control.SessionStatus
	refused []string // how the client's tries before that were answered
}

const loginRow = "logins: %-8s | %-7s | %-8s | %-11s | %-8s | %-8s | %-27s | %-33s | %s"

func (l login) String() string {
	return fmt.Sprintf(loginRow, l.server, l.version, l.account, l.client, l.Entry, cmp.Or(l.ClientTLS, "-"), l.Login, cmp.Or(strings.Join(l.refused, ", "), "-"), l.SASL)
}

// A door is what clients have to know of the proxy.
type door struct {
	addr, host, port string
	ca               string // the file of the proxy's CA
	shown            string // the certificate, for clients that take a CA from the system's list only
	desktop          []string
}

// visitors are clients that log in to the proxy and do nothing more, and that ask for a
// certificate they have reason to trust. They come back as a process, or nil where they
// have gone already.
var visitors = []struct {
	name   string
	proves string // how it proves the password, where that is offered; "" for not at all
	tries  int    // that are refused before that, or before it hands the password over
	start  func(t *testing.T, d door, jid string) *process
}{
	// slixmpp knows only a kind of channel binding that TLS 1.3 has not got, and tries it all
	// the same; then it claims that none was offered, and hands over the password in the end.
	{"slixmpp", "", 2, func(t *testing.T, d door, jid string) *process {
		return startSlixmpp(t, jid, d.addr, "starttls", "slixmpp", "ca="+d.ca).process
	}},
	{"slixmpp-1.2", "SCRAM-SHA-1-PLUS tls-unique", 0, func(t *testing.T, d door, jid string) *process {
		return startSlixmpp(t, jid, d.addr, "starttls", "slixmpp", "ca="+d.ca, "tls1.2").process
	}},
	{"go-sendxmpp", "", 0, func(t *testing.T, d door, jid string) *process {
		runGoSendxmpp(t, []string{"SSL_CERT_FILE=" + d.ca}, "hello", "-u", jid, "-p", "secret", "-j", d.addr, "nobody@"+domainOf(jid))
		return nil
	}},
	{"mcabber", "", 0, func(t *testing.T, d door, jid string) *process {
		need.Program(t, "mcabber")
		dir := t.TempDir()
		write(t, dir, map[string]string{"rc": fmt.Sprintf("set jid = %s\nset password = secret\nset server = %s\nset port = %s\nset tls = 1\nset ssl_ca = %s\nset beep_on_message = 0\n", jid, d.host, d.port, d.ca)})
		return runMcabber(t, dir)
	}},
	{"Profanity", "SCRAM-SHA-1", 0, func(t *testing.T, d door, jid string) *process {
		need.Program(t, "profanity")
		dir := t.TempDir()
		write(t, dir, map[string]string{
			"config/profanity/profrc": "[connection]\naccount=" + jid + "\n[ui]\nsplash=false\n",
			"data/profanity/accounts": fmt.Sprintf("[%s]\nenabled=true\njid=%s\nserver=%s\nport=%s\nresource=profanity\npassword=secret\ntls.policy=force\n", jid, jid, d.host, d.port),
		})
		return runProfanity(t, dir, "SSL_CERT_FILE="+d.ca)
	}},
	{"Pidgin", "SCRAM-SHA-1", 0, func(t *testing.T, d door, jid string) *process {
		need.Program(t, "pidgin", "Xvfb", "dbus-daemon")
		dir := t.TempDir()
		write(t, dir, map[string]string{
			"accounts.xml":                          pidginAccount(jid, d.port, `<setting name='connect_server' type='string'>`+d.host+`</setting>`, ""),
			"prefs.xml":                             `<?xml version='1.0' encoding='UTF-8' ?><pref version='1' name='/'><pref name='purple'><pref name='savedstatus'><pref name='startup_current_status' type='bool' value='1'/></pref></pref></pref>`,
			"certificates/x509/tls_peers/" + d.host: d.shown,
		})
		return runPidgin(t, d.desktop, dir)
	}},
	{"Gajim", "SCRAM-SHA-1", 0, func(t *testing.T, d door, jid string) *process {
		return startGajim(t, d.desktop, jid, d.addr, d.shown)
	}},
}

var (
	// beginning is what the log says of an account's session that begins.
	beginning = `msg="session begins" account=%s entry=("[^"]*"|\S+) login=("[^"]*"|\S+) upstream=("[^"]*"|\S+) sasl=("[^"]*"|\S+)`
	refusal   = regexp.MustCompile(`msg="a client's login was refused" .*condition=(\S+)`)
)

// Every client logs in by what it has, to every server by the best that has: with its
// password, and as an enrolled account by proving it.
func TestLogins(t *testing.T) {
	var desktop []string // without it, the clients that need one say so
	if _, err := exec.LookPath("Xvfb"); err == nil {
		if _, err := exec.LookPath("dbus-daemon"); err == nil {
			desktop = startDesktop(t, t.TempDir())
		}
	}
	var table []login
	for _, server := range []struct {
		name, version, sasl string
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
			d := door{addr: h.addr, ca: filepath.Join(h.state, "ca.pem"), shown: shown(t, h, s.domain), desktop: desktop}
			d.host, d.port, _ = net.SplitHostPort(h.addr)
			user := func(client string) string { return "alice-" + strings.ToLower(client) }
			log := reading{what: "otrproxy", text: h.output}
			for _, v := range visitors {
				s.register(t, user(v.name))
			}
			for _, account := range []string{"PLAIN", "enrolled"} {
				if account == "enrolled" { // all of them, for not every client says in time who it is
					for _, v := range visitors {
						h.enrol(t, user(v.name)+"@"+s.domain)
					}
				}
				for _, v := range visitors {
					t.Run(account+" "+v.name, func(t *testing.T) {
						l := login{server: server.name, version: server.version, account: account, client: v.name}
						jid := user(v.name) + "@" + s.domain
						before := len(h.output())
						p := v.start(t, d, jid)
						begins := fmt.Sprintf(beginning, regexp.QuoteMeta(jid))
						m := regexp.MustCompile(begins).FindStringSubmatch(log.next(t, begins))
						for i, x := range []*string{&l.Entry, &l.Login, &l.UpstreamTLS, &l.SASL} {
							*x = strings.Trim(m[i+1], `"`)
						}
						for _, m := range refusal.FindAllStringSubmatch(h.output()[before:log.at], -1) {
							l.refused = append(l.refused, m[1])
						}
						if p != nil {
							st := h.status(t).Sessions
							i := slices.IndexFunc(st, func(x control.SessionStatus) bool { return x.Account == jid })
							if i < 0 || st[i].Login != l.Login || st[i].SASL != l.SASL {
								t.Fatalf("the log says %v, the status %+v", l, st)
							}
							l.SessionStatus = st[i]
						}
						table = append(table, l)
						if l.Entry != "starttls" || l.UpstreamTLS != server.version || l.SASL != server.sasl {
							t.Errorf("entered by %s; upstream by %s over %s", l.Entry, l.SASL, l.UpstreamTLS)
						}
						want, tries := "PLAIN", 0
						if account == "enrolled" {
							want, tries = cmp.Or(v.proves, want), v.tries
						}
						if l.Login != want || len(l.refused) != tries {
							t.Errorf("%s after %v, not %s after %d tries", l.Login, l.refused, want, tries)
						}
					})
				}
			}
		})
	}
	t.Logf(loginRow, "server", "TLS", "account", "client", "entry", "over", "login here", "refused before that", "login there")
	for _, l := range table {
		t.Log(l)
	}
}

func domainOf(jid string) string { return jid[strings.IndexByte(jid, '@')+1:] }

// enrol enrols an account by its password.
func (h *household) enrol(t *testing.T, jid string) {
	t.Helper()
	cmd := exec.Command(binary, "login", "enroll", jid, "--config", h.conf)
	cmd.Stdin = strings.NewReader("secret\n")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "SCRAM-SHA-1") {
		t.Fatalf("enrolling %s: %v\n%s", jid, err, out)
	}
}
