//go:build linux

package real

import (
	"bytes"
	"cmp"
	"context"
	bin "encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/proxy"
	"golang.org/x/sys/unix"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/test/need"
	"otrproxy/test/socks"
)

// insideVar is set in a process that runs in a network of its own, to the program under
// test.
const insideVar = "OTRPROXY_TEST_INSIDE"

// With "via", nothing leaves but to the SOCKS proxy. That is looked at where everything
// that leaves can be seen: in a network namespace, with an interface towards the world on
// which every packet is recorded.
func TestNothingLeaks(t *testing.T) {
	apart(t, inside)
}

// apart runs a test in a network of its own.
func apart(t *testing.T, test func(*testing.T)) {
	t.Helper()
	if os.Getenv(insideVar) != "" {
		binary = os.Getenv(insideVar)
		test(t)
		return
	}
	need.Program(t, "ip")
	// With user namespaces it needs no rights; root may have them and not those.
	run := func(flags uintptr) ([]byte, error) {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=3m")
		cmd.Env = append(os.Environ(), insideVar+"="+binary)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
		if flags&syscall.CLONE_NEWUSER != 0 {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		return cmd.CombinedOutput()
	}
	const own = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS
	out, err := run(own)
	if errors.Is(err, syscall.EPERM) {
		out, err = run(own | syscall.CLONE_NEWUSER)
	}
	if _, ran := err.(*exec.ExitError); err != nil && !ran {
		need.Missing(t, "network-namespaces ("+err.Error()+")")
	}
	if _, what, ok := strings.Cut(string(out), "missing program: "); ok {
		what, _, _ = strings.Cut(what, "\n")
		need.Missing(t, what)
	}
	for line := range strings.Lines(string(out)) {
		if _, row, ok := strings.Cut(line, "_test.go:"); ok {
			t.Log(strings.TrimSpace(row))
		}
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// A capture counts what would leave this machine, and questions to a name server anywhere.
type capture struct {
	mu          sync.Mutex
	cond        sync.Cond
	dns, direct int
	marks       int
	seen        []string
}

// The world, which is not there: an address of ours, a gateway, a name server, a host.
const (
	ours, gateway, nameServer, stranger = "192.0.2.2", "192.0.2.1", "192.0.2.53", "192.0.2.80"
	mark                                = "192.0.2.9:9" // where nobody but the test sends anything
)

// private has what is mounted from now on stay with this process, and some files be others.
func private(t *testing.T, files map[string]string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	for name, text := range files {
		at, err := filepath.EvalSymlinks(name)
		if errors.Is(err, os.ErrNotExist) && name == "/etc/nsswitch.conf" { // then that is so anyway
			continue
		}
		must(err)
		file := filepath.Join(t.TempDir(), filepath.Base(name))
		must(os.WriteFile(file, []byte(text), 0o644))
		must(syscall.Mount(file, at, "", syscall.MS_BIND, ""))
	}
}

// world gives this namespace a way out, and records what takes it.
func world(t *testing.T) *capture {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	private(t, map[string]string{
		"/etc/resolv.conf":   "nameserver " + nameServer + "\noptions timeout:1 attempts:1\n",
		"/etc/nsswitch.conf": "hosts: files dns\n", // nobody is asked by another way than packets
	})
	for _, args := range []string{
		"link set lo up", "link add out type veth peer name world", "link set out up", "link set world up",
		"addr add " + ours + "/24 dev out", "neigh add " + gateway + " lladdr 02:00:00:00:00:01 dev out", "route add default via " + gateway,
		"-6 addr add 2001:db8::2/64 dev out nodad", "-6 neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev out", "-6 route add default via 2001:db8::1",
		"neigh add " + nameServer + " lladdr 02:00:00:00:00:01 dev out", "neigh add " + stranger + " lladdr 02:00:00:00:00:01 dev out", "neigh add 192.0.2.9 lladdr 02:00:00:00:00:01 dev out",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			need.Missing(t, fmt.Sprintf("network-interfaces (ip %s: %v %s)", args, err, bytes.TrimSpace(out)))
		}
	}
	all := bin.BigEndian.Uint16([]byte{byte(unix.ETH_P_ALL >> 8), byte(unix.ETH_P_ALL)})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all<<8|all>>8))
	must(err)
	lo, err := net.InterfaceByName("lo")
	must(err)
	c := &capture{}
	c.cond.L = &c.mu
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				return
			}
			at := from.(*unix.SockaddrLinklayer)
			if at.Pkttype != unix.PACKET_OUTGOING { // each is seen once
				continue
			}
			c.packet(b[:n], at.Ifindex == lo.Index)
		}
	}()
	return c
}

// packet looks at an Ethernet frame.
func (c *capture) packet(b []byte, local bool) {
	if len(b) < 34 {
		return
	}
	var proto byte
	var to net.IP
	rest := b[14:]
	switch bin.BigEndian.Uint16(b[12:]) {
	case 0x0800:
		proto, to, rest = rest[9], net.IP(rest[16:20]), rest[int(rest[0]&15)*4:]
	case 0x86dd:
		if len(rest) < 40 {
			return
		}
		proto, to, rest = rest[6], net.IP(rest[24:40]), rest[40:]
	default:
		return
	}
	if len(rest) < 8 || proto != 6 && proto != 17 {
		return
	}
	port := bin.BigEndian.Uint16(rest[2:])
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.cond.Broadcast()
	at := net.JoinHostPort(to.String(), fmt.Sprint(port))
	switch {
	case port == 53 || port == 5353 || port == 5355 || port == 853:
		c.dns++
		c.seen = append(c.seen, "DNS to "+at)
	case local:
	case at == mark:
		c.marks++
	default:
		c.direct++
		c.seen = append(c.seen, "a packet to "+at)
	}
}

// settle waits until all that was sent so far is counted.
func (c *capture) settle(t *testing.T) (dns, direct int) {
	t.Helper()
	c.mu.Lock()
	before := c.marks
	c.mu.Unlock()
	conn, err := net.Dial("udp", mark)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("mark"))
	late := time.Now().Add(patience)
	timer := time.AfterFunc(patience, c.cond.Broadcast)
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.marks == before {
		if time.Now().After(late) {
			t.Fatal("the capture does not see what is sent")
		}
		c.cond.Wait()
	}
	return c.dns, c.direct
}

func inside(t *testing.T) {
	c := world(t)
	proxied, err := socks.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer proxied.Close()
	const onion = "abcdefghijklmnopqrstuvwxyz234567.onion"
	ascii := map[string]string{"bücher.example": "xn--bcher-kva.example", "müller.example": "xn--mller-kva.example"}
	var domains strings.Builder
	servers := map[string]*server.Server{} // by where the SOCKS proxy is asked for them
	for _, d := range []string{"example.org", "bücher.example", "müller.example", onion, "wrong.example"} {
		name := d
		if a := ascii[d]; a != "" {
			name = a
		}
		cert, err := server.SelfSigned(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := server.Start(server.Config{Domain: d, Cert: &cert, Users: map[string]string{"alice": "secret", "bob": "secret"}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		host, pin, connect := name, s.Pin(), ""
		switch d {
		case "bücher.example":
			host, connect = "xmpp."+name, ", connect: \"xmpp.bücher.example:5222\""
		case "wrong.example":
			pin = "sha256:" + strings.Repeat("00", 32)
		}
		proxied.Lead(host+":5222", s.Addr())
		servers[host+":5222"] = s
		fmt.Fprintf(&domains, "  %s: {via: \"socks5://%s\", trust: pin, pins: [%q]%s}\n", d, proxied.Addr(), pin, connect)
	}
	fmt.Fprintf(&domains, "  refused.example: {via: \"socks5://%s\"}\n  down.example: {via: \"socks5://127.0.0.1:1\"}\n", proxied.Addr())
	proxied.Reply("refused.example:5222", socks.NotAllowed)
	h := &household{state: filepath.Join(t.TempDir(), "state"), conf: filepath.Join(t.TempDir(), "otrproxy.yaml")}
	configure := func(domains string) {
		t.Helper()
		text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\nlog: {level: debug}\nlimits: {login: 5s}\ndomains:\n%s", h.state, domains)
		if err := os.WriteFile(h.conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure(domains.String())
	h.start(t)

	login := func(jid string, entry client.Entry, with func(*client.Config)) error {
		cfg := client.Config{Addr: h.addr, JID: jid, Password: "secret", Entry: entry}
		if with != nil {
			with(&cfg)
		}
		c, err := client.Dial(t.Context(), cfg)
		if err == nil {
			c.Close()
		}
		return err
	}
	// What is asked for on behalf of somebody is asked for by one name and password, theirs
	// alone; what is nobody's, by another each time.
	owner, ways := map[string]string{}, map[string]string{}
	by := func(who string, atLeast int, do func()) {
		t.Helper()
		before := len(proxied.Asked())
		do()
		asked := proxied.Asked()[before:]
		if len(asked) < atLeast {
			t.Errorf("%s asked the SOCKS proxy for %+v", cmp.Or(who, "nobody"), asked)
		}
		for _, r := range asked {
			way := r.User + ":" + r.Password
			had, used := owner[way]
			if used && (had != who || who == "") || who != "" && ways[who] != "" && ways[who] != way {
				t.Errorf("%s and %s are not apart: %+v", who, had, r)
			}
			owner[way], ways[who] = who, way
			for _, word := range []string{"alice", "bob", "dave", r.Host} {
				if strings.Contains(way, word) {
					t.Errorf("the SOCKS proxy is told %s: %+v", word, r)
				}
			}
			if !r.Named {
				t.Errorf("an address was asked for: %+v", r)
			}
		}
	}
	good := func(jid string, entry client.Entry, with func(*client.Config)) {
		t.Helper()
		by(jid, 1, func() {
			if err := login(jid, entry, with); err != nil {
				t.Errorf("%s: %v", jid, err)
			}
		})
	}
	bad := func(jid, part string, asks int) {
		t.Helper()
		by(jid, asks, func() {
			if err := login(jid, client.STARTTLS, nil); err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want %q", jid, err, part)
			}
		})
	}
	reachable := []string{"example.org", "bücher.example", "müller.example", onion}
	for _, d := range reachable {
		good("alice@"+d, client.STARTTLS, nil)
		good("bob@"+d, client.Direct, nil)
		good("alice@"+d, client.Plain, nil)
	}
	good("alice@example.org", client.STARTTLS, func(c *client.Config) { // who comes by SOCKS itself
		c.Addr = "example.org:5222"
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			d, err := proxy.SOCKS5("tcp", h.addr, nil, nil)
			if err != nil {
				return nil, err
			}
			return d.Dial(network, addr)
		}
	})
	by("bob@example.org", 2, func() { // whose server goes away and comes back
		c, err := client.Dial(t.Context(), client.Config{Addr: h.addr, JID: "bob@example.org", Password: "secret", Entry: client.STARTTLS})
		if err != nil {
			t.Error(err)
			return
		}
		servers["example.org:5222"].Cut()
		c.Err()
		if err := login("bob@example.org", client.STARTTLS, nil); err != nil {
			t.Errorf("again: %v", err)
		}
	})
	bad("alice@wrong.example", "is not the one you pinned", 1)
	bad("alice@refused.example", "through the SOCKS proxy", 2)
	bad("alice@down.example", "no other way was tried", 0)
	bad("alice@unknown.example", "does not serve", 0)
	by("", 1, func() {
		fresh, err := client.Open(t.Context(), client.Config{Addr: h.addr, JID: "dave@example.org", Entry: client.STARTTLS})
		if err != nil {
			t.Fatal(err)
		}
		if st, err := fresh.Request("<iq type='set' id='1'><query xmlns='jabber:iq:register'><username>dave</username><password>secret</password></query></iq>"); err != nil || st.Root().Attr("type") != "result" {
			t.Errorf("registering: %v", err)
		}
		fresh.Close()
	})
	word := func(who string, atLeast int, says string, words ...string) {
		t.Helper()
		by(who, atLeast, func() {
			cmd := exec.Command(binary, append(words, "--config", h.conf)...)
			cmd.Stdin = strings.NewReader("secret\n")
			out, err := cmd.CombinedOutput()
			if !strings.Contains(string(out), says) || err != nil && words[0] != "doctor" { // which says by its code what it found
				t.Errorf("%v: %v, want %q\n%s", words, err, says, out)
			}
		})
	}
	word("alice@example.org", 1, "", "login", "enroll", "alice@example.org")
	for _, d := range reachable {
		word("", 1, "sha256:", "pin", "probe", d)
		word("", 3, "SCRAM-SHA-256-PLUS", "doctor", d)
	}
	word("", 2, "lead to the same certificate", "pin", "probe", "example.org", "--via", "socks5://"+proxied.Addr())
	word("", 0, "no other way was tried", "doctor", "down.example")
	h.kill(syscall.SIGTERM)
	for _, d := range reachable { // looks without a running one
		word("", 3, "SCRAM-SHA-256-PLUS", "doctor", d)
	}
	word("", 0, "no other way was tried", "doctor", "down.example")

	dns, direct := c.settle(t)
	if dns != 0 || direct != 0 {
		t.Errorf("%d questions to name servers, %d packets of direct connections: %v", dns, direct, c.seen)
	}
	for place, s := range servers {
		led := 0
		for _, r := range proxied.Asked() {
			if net.JoinHostPort(r.Host, fmt.Sprint(r.Port)) == place {
				led++
			}
		}
		if n := s.Accepted(); n != led {
			t.Errorf("%s was reached %d times, and %d of them through the SOCKS proxy", place, n, led)
		}
	}
	t.Logf("via: %d requests to the SOCKS proxy, all by name, with %d names and passwords; %d DNS packets, %d packets of direct connections", len(proxied.Asked()), len(owner), dns, direct)

	// That the capture would have seen it.
	configure("  example.org: {}\n  stranger.example: {connect: \"" + stranger + ":5222\"}\n")
	h.start(t)
	login("alice@example.org", client.STARTTLS, nil)
	login("alice@stranger.example", client.STARTTLS, nil)
	dns, direct = c.settle(t)
	if dns == 0 || direct == 0 {
		t.Errorf("without via, %d questions and %d packets were seen", dns, direct)
	}
	t.Logf("via: %d DNS packets and %d packets of direct connections without it, by the same capture", dns, direct)
}

// Tor, without any network, understands how it is asked, and what it answers reaches the
// person.
func TestTor(t *testing.T) { apart(t, insideTor) }

func insideTor(t *testing.T) {
	need.Program(t, "tor")
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	dir := t.TempDir()
	empty := filepath.Join(dir, "torrc")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tor := start(t, "tor", nil, dir, "tor", "-f", empty, "--defaults-torrc", empty, "--DataDirectory", filepath.Join(dir, "data"),
		"--SocksPort", "127.0.0.1:auto IsolateSOCKSAuth ExtendedErrors", "--SocksTimeout", "2", "--TestSocks", "1", "--Log", "[app]debug notice stdout", "--RunAsDaemon", "0")
	line := tor.says(t, `Opened Socks listener connection \(ready\) on 127\.0\.0\.1:\d+`)
	at := line[strings.LastIndex(line, " ")+1:]
	const (
		broken = "abcdefghij.onion"
		sound  = "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion"
	)
	h := &household{state: filepath.Join(t.TempDir(), "state"), conf: filepath.Join(t.TempDir(), "otrproxy.yaml")}
	text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\nlog: {level: debug}\ndomains:\n", h.state)
	for _, d := range []string{"example.org", broken, sound} {
		text += fmt.Sprintf("  %s: {via: \"socks5://%s\", tls: starttls}\n", d, at)
	}
	if err := os.WriteFile(h.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.start(t)
	// Two clocks of Tor's end what is asked of it without a network: one by SocksTimeout, which
	// answers "TTL expired", the other when it tries again to find a circuit, which answers
	// "general failure". Either may come first.
	const noWay = "it found no way there in time|it failed, without saying why"
	for domain, want := range map[string]string{"example.org": noWay, broken: "this is no valid onion address", sound: noWay} {
		_, err := client.Dial(t.Context(), client.Config{Addr: h.addr, JID: "alice@" + domain, Password: "secret", Entry: client.STARTTLS})
		if err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
			t.Errorf("%s: %v, want %q", domain, err, want)
			continue
		}
		t.Logf("tor: %s: %v", domain, err)
	}
	tor.says(t, `accepted method 2 \(username/password\)`)
	tor.says(t, `instructed Tor to take care of the DNS resolution itself`)
	if strings.Contains(tor.output(), "authentication failed") || strings.Contains(tor.output(), "Socks version") || strings.Contains(tor.output(), "accepted method 0") || strings.Contains(tor.output(), "giving Tor only an IP address") {
		t.Errorf("tor did not understand:\n%s", tor.output())
	}
}
