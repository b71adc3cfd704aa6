//go:build linux

package real

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
	"otrproxy/test/need"
)

// An xmppServer is a real one.
type xmppServer struct {
	*process
	name   string
	domain string
	ip     string
	mode   string // starttls or direct: how the proxy connects
	pin    string
	log    string // the server's own record of what it received
	record *regexp.Regexp
	dir    string // where its certificate is
	next   string // where its next one is, "" for none yet
	reload func() // has it read that again
	again  func() // starts it once more, with what it keeps
}

func (s *xmppServer) connect() string {
	if s.mode == "direct" {
		return s.ip + ":5223"
	}
	return s.ip + ":5222"
}

// received is all that clients have sent, by the server's own account.
func (s *xmppServer) received() string {
	b, _ := os.ReadFile(s.log)
	var out strings.Builder
	for _, m := range s.record.FindAllStringSubmatch(string(b), -1) {
		out.WriteString(m[1])
		out.WriteByte('\n')
	}
	return out.String()
}

// sealed is what OTR has encrypted. It is base64, in which a short word stands by chance now and then.
var sealed = regexp.MustCompile(`\?OTR:[A-Za-z0-9+/=]+`)

// legible is what the server has received, but for what is encrypted.
func (s *xmppServer) legible() string { return sealed.ReplaceAllString(s.received(), "?OTR:") }

// certificate writes a self-signed certificate and its key for a domain.
func (s *xmppServer) certificate(t *testing.T, dir string) (certFile, keyFile string) {
	t.Helper()
	c, err := server.SelfSigned(s.domain)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, s.domain+".crt"), filepath.Join(dir, s.domain+".key")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	os.WriteFile(certFile, certPEM, 0o600)
	os.WriteFile(keyFile, keyPEM, 0o600)
	os.WriteFile(filepath.Join(dir, "both.pem"), append(certPEM, keyPEM...), 0o600)
	pin := config.Pin{Sum: sha256.Sum256(c.Certificate[0])}
	s.pin = pin.String()
	return certFile, keyFile
}

// announces makes the next key and certificate, and returns the pin of that key; renews
// puts them in force.
func (s *xmppServer) announces(t *testing.T) string {
	t.Helper()
	now := s.pin
	s.next = t.TempDir()
	file, _ := s.certificate(t, s.next)
	s.pin = now
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return config.Pin{SPKI: true, Sum: sha256.Sum256(c.RawSubjectPublicKeyInfo)}.String()
}

// renews gives the server another key and certificate while it runs.
func (s *xmppServer) renews(t *testing.T) {
	t.Helper()
	old := s.presents(t)
	if s.next == "" {
		s.announces(t)
	}
	for _, name := range []string{s.domain + ".crt", s.domain + ".key", "both.pem"} {
		from, to := filepath.Join(s.next, name), filepath.Join(s.dir, name)
		was, err := os.Stat(to)
		if err != nil {
			t.Fatal(err)
		}
		later := was.ModTime().Add(time.Second) // ejabberd does not look at a file that is of the same second
		if err := errors.Join(os.Chtimes(from, later, later), os.Rename(from, to)); err != nil {
			t.Fatal(err)
		}
	}
	s.next = ""
	s.reload()
	eventually(t, s.name+" to present its new certificate", func() bool { return s.presents(t) != old })
}

// presents is the SHA-256 of the certificate that the server presents.
func (s *xmppServer) presents(t *testing.T) (sum [32]byte) {
	t.Helper()
	_, err := client.Open(t.Context(), client.Config{Addr: s.ip + ":5222", JID: "x@" + s.domain, Entry: client.STARTTLS, TLS: &tls.Config{InsecureSkipVerify: true, ServerName: s.domain,
		VerifyConnection: func(cs tls.ConnectionState) error {
			sum = sha256.Sum256(cs.PeerCertificates[0].Raw)
			return errors.New("seen")
		}}})
	if err == nil {
		t.Error("a connection that was broken off went on")
	}
	return sum
}

// listening waits for a port.
func (s *xmppServer) listening(t *testing.T, port string) {
	t.Helper()
	eventuallyWithin(t, s.name+" to listen", time.Minute, func() bool { // an Erlang system starts slowly on a busy machine
		select {
		case <-s.done:
			t.Fatalf("%s ended:\n%s", s.name, s.output())
		default:
		}
		c, err := net.Dial("tcp", net.JoinHostPort(s.ip, port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// register makes accounts by in-band registration; every password is "secret".
func (s *xmppServer) register(t *testing.T, people ...string) {
	t.Helper()
	for _, who := range people {
		registerAt(t, s.ip+":5222", who+"@"+s.domain)
	}
}

func registerAt(t *testing.T, addr, jid string) {
	t.Helper()
	user, _, _ := strings.Cut(jid, "@")
	c, err := client.Open(t.Context(), client.Config{Addr: addr, JID: jid, Entry: client.STARTTLS})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer, err := c.Request("<iq type='set' id='reg'><query xmlns='jabber:iq:register'><username>" + user + "</username><password>secret</password></query></iq>")
	if err != nil || answer.Root().Attr("type") != "result" {
		raw := []byte{}
		if answer != nil {
			raw = answer.Raw
		}
		t.Fatalf("registering %s: %v %s", jid, err, raw)
	}
}

func startProsody(t *testing.T, mode string) *xmppServer { return startProsodyWith(t, mode, "") }

func startProsodyWith(t *testing.T, mode, ssl string) *xmppServer {
	t.Helper()
	return startProsodyAt(t, nil, []string{loopback(t)}, mode, ssl)
}

// startProsodyAt starts one on some addresses, by a command in front, such as one that leads
// to another network.
func startProsodyAt(t *testing.T, by, ips []string, mode, ssl string) *xmppServer {
	t.Helper()
	need.Program(t, "prosody")
	dir := t.TempDir()
	s := &xmppServer{name: "Prosody", domain: "one.test", ip: ips[0], mode: mode, log: filepath.Join(dir, "debug.log"),
		record: regexp.MustCompile(`(?m)\tRECV: (.*)$`)}
	s.dir = dir
	cert, key := s.certificate(t, dir)
	os.MkdirAll(filepath.Join(dir, "data"), 0o700)
	conf := fmt.Sprintf(`
pidfile = %q
data_path = %q
run_as_root = true
daemonize = false
interfaces = { %s }
local_interfaces = { %[3]s }
c2s_ports = { 5222 }
c2s_direct_tls_ports = { 5223 }
s2s_ports = { }
http_ports = { }
https_ports = { }
use_ipv6 = %t
modules_enabled = { "disco"; "roster"; "saslauth"; "tls"; "blocklist"; "carbons"; "pep"; "private"; "smacks"; "csi"; "ping"; "register"; "register_ibr"; "mam"; "offline"; "stanza_debug" }
modules_disabled = { "s2s"; "http" }
allow_registration = true
registration_throttle_max = 100000
registration_throttle_period = 1
c2s_require_encryption = true
authentication = "internal_hashed"
storage = "internal"
archive_expires_after = "1w"
log = { debug = %q }
certificates = %q
VirtualHost "one.test"
  ssl = { %scertificate = %q, key = %q }
Component "rooms.one.test" "muc"
  modules_enabled = { "muc_mam" }
`, filepath.Join(dir, "pid"), filepath.Join(dir, "data"), fmt.Sprintf(`"%s"`, strings.Join(ips, `"; "`)), len(ips) > 1, s.log, dir, ssl, cert, key)
	file := filepath.Join(dir, "prosody.cfg.lua")
	os.WriteFile(file, []byte(conf), 0o600)
	s.again = func() {
		s.process = start(t, "prosody", []string{"HOME=" + dir}, dir, append(by, "prosody", "--config", file)...)
		s.listening(t, "5222")
		s.listening(t, "5223")
	}
	s.again()
	s.reload = func() { s.cmd.Process.Signal(syscall.SIGHUP) }
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s received:\n%s", s.name, s.received())
		}
	})
	return s
}

func startEjabberd(t *testing.T, mode string) *xmppServer { return startEjabberdWith(t, mode, "") }

func startEjabberdWith(t *testing.T, mode, listen string) *xmppServer {
	t.Helper()
	need.Program(t, "erl")
	libs, _ := filepath.Glob("/usr/lib/*/ejabberd-*")
	if len(libs) == 0 {
		need.Program(t, "ejabberd")
	}
	dir := t.TempDir()
	s := &xmppServer{name: "ejabberd", domain: "two.test", ip: loopback(t), mode: mode, log: filepath.Join(dir, "ejabberd.log"),
		record: regexp.MustCompile(`Received XML on stream = <<"(.*)">>`)}
	s.dir = dir
	s.certificate(t, dir)
	os.MkdirAll(filepath.Join(dir, "spool"), 0o700)
	conf := fmt.Sprintf(`
hosts: [ "two.test" ]
loglevel: debug
log_rotate_size: 104857600
log_burst_limit_count: 100000000
hide_sensitive_log_data: false
certfiles: [ %q ]
auth_method: [ internal ]
auth_password_format: scram
listen:
  - { port: 5222, ip: %q, module: ejabberd_c2s, max_stanza_size: 262144, shaper: none, access: all, starttls: true%s }
  - { port: 5223, ip: %q, module: ejabberd_c2s, max_stanza_size: 262144, shaper: none, access: all, tls: true%s }
  - { port: 5280, ip: %q, module: ejabberd_http, request_handlers: { /register: mod_register_web } }
acl:
  local: { user_regexp: "" }
  loopback: { ip: [ 127.0.0.0/8 ] }
access_rules:
  local: { allow: local }
  trusted_network: { allow: loopback }
modules:
  mod_carboncopy: {}
  mod_client_state: {}
  mod_disco: {}
  mod_mam: { assume_mam_usage: true, default: always }
  mod_offline: {}
  mod_ping: {}
  mod_register: { ip_access: trusted_network, welcome_message: { subject: "", body: "" } }
  mod_register_web: {}
  mod_roster: { versioning: true }
  mod_stream_mgmt: {}
registration_timeout: infinity
`, filepath.Join(dir, "both.pem"), s.ip, listen, s.ip, listen, s.ip)
	file := filepath.Join(dir, "ejabberd.yml")
	os.WriteFile(file, []byte(conf), 0o600)
	rc := filepath.Join(dir, "inetrc")
	os.WriteFile(rc, []byte(`{lookup,["file","native"]}.`+"\n"+`{file, resolv, ""}.`+"\n"+`{host,{127,0,0,1},["localhost"]}.`+"\n"), 0o600)
	env := []string{"HOME=" + dir, "EJABBERD_CONFIG_PATH=" + file, "EJABBERD_LOG_PATH=" + s.log, "ERL_CRASH_DUMP_BYTES=0", "ERL_INETRC=" + rc}
	if len(libs) > 0 {
		env = append(env, "ERL_LIBS="+filepath.Dir(libs[0]))
	}
	s.process = start(t, "ejabberd", env, dir, "erl", "+K", "true", "-noinput", "-mnesia", "dir", fmt.Sprintf("%q", filepath.Join(dir, "spool")), "-s", "ejabberd",
		// Only what is received is of interest, and a busy logger drops lines.
		"-eval", "logger:set_primary_config(level, notice).",
		// Nobody else can tell this node to read its configuration again.
		"-eval", `spawn(fun Watch() -> timer:sleep(50), case file:delete("reload") of ok -> ejabberd_config:reload(); _ -> ok end, Watch() end).`)
	s.reload = func() { os.WriteFile(filepath.Join(dir, "reload"), nil, 0o600) }
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s received:\n%s", s.name, s.received())
		}
	})
	s.listening(t, "5222")
	s.listening(t, "5223")
	return s
}

// serverKinds are the servers every scenario is run against.
var serverKinds = map[string]func(*testing.T, string) *xmppServer{"prosody": startProsody, "ejabberd": startEjabberd}

// befriended brings both onto each other's roster; the friend is online and says yes.
func befriended(t *testing.T, s *xmppServer, user, friend string) {
	t.Helper()
	c, err := client.Dial(t.Context(), client.Config{Addr: s.ip + ":5222", JID: user + "@" + s.domain, Password: "secret", Entry: client.STARTTLS})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	presence := func(kind string) {
		if err := c.Send("<presence type='" + kind + "' to='" + friend + "'/>"); err != nil {
			t.Fatal(err)
		}
	}
	await := func(kind string) {
		t.Helper()
		if _, err := c.Wait(func(st *stanza.Stanza) bool {
			return string(st.Root().Local()) == "presence" && st.Root().Attr("type") == kind && strings.HasPrefix(st.Root().Attr("from"), friend)
		}); err != nil {
			t.Fatalf("%s of %s: %v", kind, friend, err)
		}
	}
	presence("subscribe")
	await("subscribe")
	presence("subscribed")
	await("") // is seen
}
