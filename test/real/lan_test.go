//go:build linux

package real

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/test/dns"
	"otrproxy/test/need"
)

// A household behind a router: a device with an unchanged program, the router with otrproxy
// and the rules of packaging/nftables, and the Internet with a server. The test itself is
// the router.
const (
	lanRouter4, lanDevice4 = "192.168.77.1", "192.168.77.10"
	lanRouter6, lanDevice6 = "fd77::1", "fd77::10"
	wanRouter4, wanServer4 = "198.51.100.1", "198.51.100.5"
	wanRouter6, wanServer6 = "2001:db8:77::1", "2001:db8:77::5"
)

var device, internet = []string{"ip", "netns", "exec", "device"}, []string{"ip", "netns", "exec", "internet"}

// ran runs a program, which has to succeed.
func ran(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}

// wired makes the three networks.
func wired(t *testing.T) {
	t.Helper()
	private(t, map[string]string{"/etc/resolv.conf": "nameserver " + lanRouter4 + "\noptions timeout:1 attempts:1\n", "/etc/nsswitch.conf": "hosts: files dns\n"})
	if err := syscall.Mount("none", "/run", "tmpfs", 0, ""); err != nil { // where ip keeps what it names
		t.Fatal(err)
	}
	for _, line := range []string{
		"ip link set lo up", "ip netns add device", "ip netns add internet",
		"ip link add lan type veth peer name eth0 netns device", "ip link add wan type veth peer name eth0 netns internet",
		"ip link set lan up", "ip link set wan up",
		"ip addr add " + lanRouter4 + "/24 dev lan", "ip addr add " + wanRouter4 + "/24 dev wan",
		"ip addr add " + lanRouter6 + "/64 dev lan nodad", "ip addr add " + wanRouter6 + "/64 dev wan nodad",
		"ip -n device link set lo up", "ip -n device link set eth0 up",
		"ip -n device addr add " + lanDevice4 + "/24 dev eth0", "ip -n device addr add " + lanDevice6 + "/64 dev eth0 nodad",
		"ip -n device route add default via " + lanRouter4, "ip -n device -6 route add default via " + lanRouter6,
		"ip -n internet link set lo up", "ip -n internet link set eth0 up",
		"ip -n internet addr add " + wanServer4 + "/24 dev eth0", "ip -n internet addr add " + wanServer6 + "/64 dev eth0 nodad",
		"ip -n internet route add default via " + wanRouter4, "ip -n internet -6 route add default via " + wanRouter6,
	} {
		if out, err := exec.Command("ip", strings.Fields(line)[1:]...).CombinedOutput(); err != nil {
			need.Missing(t, fmt.Sprintf("network-interfaces (%s: %v %s)", line, err, out))
		}
	}
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0o644); err != nil {
			need.Missing(t, "forwarding ("+err.Error()+")")
		}
	}
}

// ruleset is packaging/nftables/otrproxy.nft for the networks here.
func ruleset(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../packaging/nftables/otrproxy.nft")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), `define lan = { "br-lan" }`, `define lan = { "lan" }`, 1)
	if text == string(b) {
		t.Fatal("the ruleset does not say where its interface is set")
	}
	file := filepath.Join(t.TempDir(), "otrproxy.nft")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// counted is how many connections a chain of the ruleset has counted.
func counted(t *testing.T, chain string) int {
	t.Helper()
	var list struct {
		Nftables []struct {
			Rule *struct {
				Expr []struct {
					Counter *struct{ Packets int }
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(ran(t, "nft", "-j", "list", "chain", "inet", "otrproxy", chain)), &list); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, x := range list.Nftables {
		if x.Rule == nil {
			continue
		}
		for _, e := range x.Rule.Expr {
			if e.Counter != nil {
				n += e.Counter.Packets
			}
		}
	}
	return n
}

// An unchanged program that trusts the CA, and goes where DNS says that its server is, talks
// OTR by the router's doing; the router's own connections are left alone; without the rules
// it is as it was.
func TestCaptured(t *testing.T) { apart(t, insideCaptured) }

func insideCaptured(t *testing.T) {
	need.Program(t, "nft", "mcabber", "openssl")
	need.PythonModule(t, "slixmpp")
	wired(t)
	names, err := dns.NewAt(lanRouter4 + ":53")
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	names.Host("xmpp.one.test", wanServer4)
	names.Host("one.test", wanServer4)
	names.SRV("xmpp-client", "one.test", "xmpp.one.test", 5222, 1, 1)
	s := startProsodyAt(t, internet, []string{wanServer4, wanServer6}, "starttls", "")
	s.register(t, "alice", "bob")
	h := &household{state: filepath.Join(t.TempDir(), "state"), conf: filepath.Join(t.TempDir(), "otrproxy.yaml")}
	text := fmt.Sprintf("listen: [\"[::]:5222\"]\nonboarding: \"[::]:5288\"\nstate: %q\nlog: {level: debug}\ndomains:\n  one.test: {trust: pin, pins: [%q]}\n", h.state, s.pin)
	if err := os.WriteFile(h.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.start(t)
	ca := "ca=" + filepath.Join(h.state, "ca.pem")

	// Without the rules, the device reaches its server, and otrproxy nothing.
	var bob contact
	straight := func(text string) {
		t.Helper()
		alice := startSlixmppIn(t, device, "alice@one.test", "-:0", "starttls", "straight")
		alice.online()
		if bob == nil {
			bob = startMcabber(t, s, "bob", "alice@one.test") // on the router, and straight to the server
		}
		alice.say("bob@one.test", "s1", text)
		eventually(t, "the server to receive "+text, func() bool { return strings.Contains(s.received(), text) })
		if st := h.status(t); len(st.Sessions) > 0 {
			t.Errorf("without the rules, otrproxy has %+v", st.Sessions)
		}
		alice.quit()
	}
	straight("in clear before")

	file := ruleset(t)
	ran(t, "nft", "-c", "-f", file)
	ran(t, "nft", "-f", file)
	ran(t, "nft", "-f", file) // again, as after a change
	led := 0
	captured := func(addr, entry string) {
		t.Helper()
		led++
		alice := startSlixmppIn(t, device, "alice@one.test", addr, entry, "led", ca)
		alice.online()
		st := h.status(t)
		if len(st.Sessions) != 1 || st.Sessions[0].Entry != entry || st.Sessions[0].Account != "alice@one.test" || !strings.HasPrefix(st.Sessions[0].Address, "xmpp.one.test:5222") {
			t.Fatalf("%s by %s: %+v", addr, entry, st.Sessions)
		}
		word := fmt.Sprintf("secret number %d", led)
		alice.befriend(bob)
		alice.say("bob@one.test", "c1", word)
		if led == 1 { // which outlives the program's connection
			alice.noticed("bob@one.test", "Private conversation with bob@one.test")
		}
		bob.reads(word)
		bob.say("back " + word)
		alice.reads("bob@one.test", "back "+word)
		if strings.Contains(s.received(), word) {
			t.Errorf("the server received %q", word)
		}
		alice.quit()
		eventually(t, "the session to end", func() bool { return len(h.status(t).Sessions) == 0 })
	}
	captured("-:0", "starttls")
	captured("one.test:5223", "direct")
	names.Remove("one.test")
	names.Host("one.test", wanServer6)
	captured("one.test:5222", "starttls")
	captured("one.test:5223", "direct")
	if n := counted(t, "lead"); n != led {
		t.Errorf("%d connections were led to otrproxy, of %d that the device made: the router's own are among them, or one went another way", n, led)
	}

	// By the router's own address, as a program that was set to it; OpenSSL's check of the
	// address, and of what the CA may vouch for.
	for _, at := range []string{lanRouter4, lanRouter6} {
		argv := slices.Concat(device, []string{"openssl", "s_client", "-connect", net.JoinHostPort(at, "5222"), "-verify_ip", at, "-CAfile", filepath.Join(h.state, "ca.pem"), "-verify_return_error", "-brief"})
		if out := ran(t, argv...); !strings.Contains(out, "Verification: OK") {
			t.Errorf("%s: %s", at, out)
		}
	}
	// From the Internet nobody gets in.
	for _, at := range []string{wanRouter4 + ":5222", wanRouter4 + ":5288", "[" + wanRouter6 + "]:5222", "[" + wanRouter6 + "]:5288"} {
		host, port, _ := net.SplitHostPort(at)
		script := "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])))"
		out, err := exec.Command(internet[0], slices.Concat(internet[1:], []string{need.Python, "-c", script, host, port})...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "ConnectionRefusedError") {
			t.Errorf("%s from outside: %v %s", at, err, out)
		}
	}
	if n := counted(t, "guard"); n != 4 {
		t.Errorf("%d connections from outside were turned away, of 4", n)
	}

	// A device that shall be left alone.
	ran(t, "nft", "add", "element", "inet", "otrproxy", "exempt4", "{ "+lanDevice4+" }")
	straight("in clear by exemption")
	if n := counted(t, "lead"); n != led+2 { // with those to the router's own address
		t.Errorf("%d connections were led to otrproxy, of %d, with one that shall not be", n, led+2)
	}
	ran(t, "nft", "delete", "table", "inet", "otrproxy")
	if out := ran(t, "nft", "list", "ruleset"); strings.TrimSpace(out) != "" {
		t.Errorf("the rules leave behind:\n%s", out)
	}
	straight("in clear afterwards")
	t.Logf("capture: %d logins of an unchanged program led to otrproxy over IPv4 and IPv6, STARTTLS and TLS; none of the router's own", led)
}

// Whatever comes first from another address than this machine's loopback, nothing of
// anybody's goes in clear: no login is offered or taken before TLS.
func TestOffLoopback(t *testing.T) { apart(t, insideOffLoopback) }

func insideOffLoopback(t *testing.T) {
	const box = "10.77.0.1"
	private(t, nil)
	for _, line := range []string{"link set lo up", "addr add " + box + "/32 dev lo", "route add local 10.77.0.0/16 dev lo"} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			need.Missing(t, fmt.Sprintf("network-interfaces (ip %s: %v %s)", line, err, out))
		}
	}
	s, err := server.Start(server.Config{Domain: "example.org", Users: map[string]string{"alice": "wonderland"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := &household{state: filepath.Join(t.TempDir(), "state"), conf: filepath.Join(t.TempDir(), "otrproxy.yaml")}
	text := fmt.Sprintf("listen: [\"%s:0\"]\nstate: %q\nlog: {level: debug}\ndomains:\n  example.org: {connect: %q, trust: pin, pins: [%q]}\n", box, h.state, s.Addr(), s.Pin())
	if err := os.WriteFile(h.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.start(t)

	// Each comes from an address of its own: of one, so many would be made to wait.
	n := 1
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		n++
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 77, byte(n>>8), byte(n))}}
		return d.DialContext(ctx, network, addr)
	}

	// says sends something and reads what comes back until the end.
	says := func(text string) string {
		t.Helper()
		c, err := dial(t.Context(), "tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		io.WriteString(c, text)
		c.(*net.TCPConn).CloseWrite()
		b, err := io.ReadAll(c)
		if err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%.60q is not ended: %v", text, err)
		}
		return string(b)
	}
	closed := func(what, answer string) {
		t.Helper()
		for _, open := range []string{"mechanism>", "PLAIN", "SCRAM", "<success", "jabber:iq:register", "iq-register", "101 Switching", "<bind"} {
			if strings.Contains(answer, open) {
				t.Errorf("%.60q is answered in clear by %q", what, answer)
			}
		}
	}
	const (
		stream   = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.org' from='alice@example.org' version='1.0'>"
		register = "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>eve</username><password>x</password></query></iq>"
		open     = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.org' version='1.0'/>"
	)
	login := "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + base64.StdEncoding.EncodeToString([]byte("\x00alice\x00wonderland")) + "</auth>"
	for first := range 256 {
		b := string([]byte{byte(first)})
		for _, more := range []string{"", "\x01\x00", "ET / HTTP/1.1\r\nHost: " + box + "\r\n\r\n", strings.TrimPrefix(stream, "<") + login, strings.Repeat(b, 100)} {
			closed(b+more, says(b+more))
		}
	}
	required := "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
	for _, then := range []string{login, register, "<message to='bob@example.org'><body>x</body></message>", "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
		"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>biwsbj1hbGljZSxyPXg=</auth>", "<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>"} {
		answer := says(stream + then)
		closed(then, answer)
		if !strings.Contains(answer, required) || !strings.Contains(answer, "TLS only") {
			t.Errorf("%.60q is answered by %q", then, answer)
		}
	}
	key := "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n"
	for _, host := range []string{h.addr, "localhost", "127.0.0.1"} {
		for _, origin := range []string{"", "Origin: http://localhost\r\n", "Origin: http://" + h.addr + "\r\n"} {
			answer := says("GET /xmpp-websocket HTTP/1.1\r\nHost: " + host + key + origin + "\r\n" + open)
			closed("a WebSocket", answer)
			if !strings.HasPrefix(answer, "HTTP/1.1 403 ") {
				t.Errorf("a WebSocket in clear for %s, %q: %q", host, origin, answer)
			}
		}
	}
	// By SOCKS it is the same: what is carried here has come from there.
	carried := func(ctx context.Context, network, addr string) (net.Conn, error) {
		d, err := proxy.SOCKS5("tcp", h.addr, nil, dialer(dial))
		if err != nil {
			return nil, err
		}
		return d.Dial(network, addr)
	}
	for _, then := range []string{login, register} {
		c, err := carried(t.Context(), "tcp", "example.org:5222")
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		io.WriteString(c, stream+then)
		b, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		c.Close()
		closed("SOCKS and "+then, string(b))
		if !strings.Contains(string(b), required) {
			t.Errorf("by SOCKS: %q", b)
		}
	}
	if c, err := carried(t.Context(), "tcp", "example.net:5222"); err == nil {
		c.Close()
		t.Error("by SOCKS one gets elsewhere")
	}
	if got := string(s.Received()); strings.Contains(got, "<auth") || strings.Contains(got, "jabber:iq:register") || strings.Contains(got, "<message") {
		t.Errorf("the server received %q", got)
	}
	// And with TLS all of these work.
	for _, cfg := range []client.Config{{Addr: h.addr, Entry: client.STARTTLS}, {Addr: h.addr, Entry: client.Direct}, {Addr: "example.org:5222", Entry: client.STARTTLS, Dial: carried}, {Addr: "example.org:5222", Entry: client.Direct, Dial: carried}} {
		cfg.JID, cfg.Password = "alice@example.org", "wonderland"
		if cfg.Dial == nil {
			cfg.Dial = dial
		}
		c, err := client.Dial(t.Context(), cfg)
		if err != nil {
			t.Errorf("%s by TLS: %v", cfg.Entry, err)
			continue
		}
		c.Close()
	}
	if _, err := client.Dial(t.Context(), client.Config{Addr: h.addr, JID: "alice@example.org", Password: "wonderland", Entry: client.Plain, Dial: dial}); err == nil {
		t.Error("a login in clear")
	}
	h.kill(syscall.SIGTERM)
}

// dialer is a way to connect as the SOCKS client wants it.
type dialer func(context.Context, string, string) (net.Conn, error)

func (d dialer) Dial(network, addr string) (net.Conn, error) {
	return d(context.Background(), network, addr)
}
