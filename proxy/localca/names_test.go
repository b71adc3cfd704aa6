package localca

import (
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"otrproxy/config"
	"otrproxy/proxy/hostname"
)

// opened is the CA of a directory, and whether it is a new one.
func opened(t *testing.T, dir string, domains, names []string) (*Authority, bool) {
	t.Helper()
	a, made, err := Open(dir, domains, names)
	if err != nil {
		t.Fatal(err)
	}
	return a, made
}

func none() []string { return nil }

// passes reports whether a client that trusts the CA alone accepts what it is shown for a name.
func passes(t *testing.T, a *Authority, domain, name string, must ...string) bool {
	t.Helper()
	c, err := a.leaf(domain, must, none)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.Cert)
	_, err = c.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name})
	return err == nil
}

// A box that is opened to its household, or gets another name or address there, keeps its CA.
func TestNamesKeepTheCA(t *testing.T) {
	dir := t.TempDir()
	domains := []string{"example.org"}
	a, made := opened(t, dir, domains, nil)
	if !made || !a.Constrained() {
		t.Fatal("no CA for the domains alone was made")
	}
	for _, names := range [][]string{{"otrproxy.lan"}, {"192.168.1.2", "box.local"}, {"10.1.2.3", "172.31.0.1", "fd12::3", "169.254.7.7", "box.home.arpa", "a.b.internal"}, nil} {
		if a, made = opened(t, dir, domains, names); made {
			t.Errorf("%v needed a new CA", names)
		}
		for _, name := range append(names, "example.org", "localhost", "127.0.0.1", "::1") {
			if !passes(t, a, "example.org", name, names...) {
				t.Errorf("with names %v, %s is refused", names, name)
			}
		}
	}
	if _, made = opened(t, dir, []string{"chat.example.org"}, nil); made {
		t.Error("a domain below one that the CA may sign for needed a new one")
	}
}

// What has a meaning outside of the household takes the owner's word, and a new CA.
func TestNamesOutsideNeedANewCA(t *testing.T) {
	for _, name := range []string{"box.example.net", "203.0.113.5", "2001:db8::5", "172.32.0.1", "raspberrypi", "evillan"} {
		dir := t.TempDir()
		a, _ := opened(t, dir, []string{"example.org"}, nil)
		if passes(t, a, "example.org", name, name) {
			t.Errorf("a CA for example.org vouches for %s", name)
		}
		if !passes(t, a, "example.org", "example.org", name) {
			t.Errorf("for %s, which it may not sign for, the rest is worth nothing", name)
		}
		if passes(t, a, name, "") {
			t.Errorf("a thief of the CA can play %s", name)
		}
		a, made := opened(t, dir, []string{"example.org"}, []string{name})
		if !made || !passes(t, a, "example.org", name, name) {
			t.Errorf("%s is configured, and clients would refuse it", name)
		}
		if _, made = opened(t, dir, []string{"example.org"}, []string{name}); made {
			t.Errorf("a new CA for %s at each start", name)
		}
	}
}

// A CA from before, for the domains and this machine alone, stays as long as nothing that is
// configured needs another.
func TestNamesOfAnOldCA(t *testing.T) {
	dir := t.TempDir()
	homes, ranges := homeNames, homeRanges
	homeNames, homeRanges = homeNames[:1], homeRanges[:2]
	old, _ := opened(t, dir, []string{"example.org"}, nil)
	homeNames, homeRanges = homes, ranges
	a, made := opened(t, dir, []string{"example.org"}, nil)
	if made || !a.Cert.Equal(old.Cert) {
		t.Fatal("a CA that serves was replaced")
	}
	if !passes(t, a, "example.org", "example.org", "192.168.1.2") || passes(t, a, "example.org", "192.168.1.2", "192.168.1.2") {
		t.Error("an address that is listened on, and the CA may not sign for, is not left out")
	}
	if _, made = opened(t, dir, []string{"example.org"}, []string{"192.168.1.2"}); !made {
		t.Error("a name that is configured has no effect")
	}
}

// A kept certificate stays the same until a name is missing in it; then the new one is kept.
func TestNamesRemakeKept(t *testing.T) {
	dir := t.TempDir()
	show := func(must ...string) string {
		t.Helper()
		a, _ := opened(t, dir, []string{"example.org"}, nil) // as after a restart
		c, err := a.leaf("example.org", must, func() []string { return []string{"192.168.1.9"} })
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Keep("example.org"); err != nil {
			t.Fatal(err)
		}
		if again, _ := a.leaf("example.org", must, none); again != c {
			t.Error("another certificate for the next connection")
		}
		return string(c.Certificate[0])
	}
	first := show()
	if show() != first || show("192.168.1.9") != first {
		t.Error("a certificate that has all names was made anew")
	}
	second := show("otrproxy.lan")
	if second == first {
		t.Error("a certificate without a name was kept")
	}
	if show("otrproxy.lan") != second || show() != second {
		t.Error("the new certificate is not kept")
	}
	b, err := os.ReadFile(filepath.Join(dir, certDir, "example.org.pem"))
	if err != nil || !strings.Contains(string(b), "PRIVATE KEY") {
		t.Error(err)
	}
}

// What is listened on and configured are names of this machine; of a wildcard, its
// interfaces' addresses, when somebody comes by one.
func TestOwnNames(t *testing.T) {
	cfg := config.Default()
	cfg.Names = []string{"otrproxy.lan", "example.org"}
	cfg.Listen = []string{"127.0.0.1:5222", "[::1]:5222", "192.168.1.2:5222", "[fd00::2]:5223", "Box.home.arpa:5222", "localhost:5224", "[fe80::1%lo]:5222"}
	cfg.Domains = map[string]config.Domain{"example.org": {Name: "example.org"}}
	m := &Machine{Config: func() *config.Config { return cfg }}
	if got := strings.Join(m.Names(), " "); got != "otrproxy.lan example.org 192.168.1.2 fd00::2 box.home.arpa" {
		t.Errorf("names: %s", got)
	}
	if m.interfaces() != nil {
		t.Error("addresses that are not listened on")
	}
	for name, want := range map[string]bool{"localhost": true, "OTRproxy.lan.": true, "192.168.7.7": true, "fd00::9": true, "box.home.arpa": true, "example.org": false, "other.lan": false} {
		if m.OwnHost(name) != want {
			t.Errorf("%s is our own: %v", name, !want)
		}
	}
	for _, listen := range []string{":5222", "0.0.0.0:5222", "[::]:5222"} {
		c := *cfg
		c.Listen = []string{listen}
		cfg = &c
		addrs, _ := net.InterfaceAddrs()
		m.Own = MachineAddresses()
		want := slices.ContainsFunc(addrs, func(a net.Addr) bool { return !hostname.AddressOf(a).IsLoopback() && !hostname.AddressOf(a).Is6() })
		if want && len(m.interfaces()) == 0 {
			t.Errorf("%s: no addresses of this machine", listen)
		}
		if slices.Contains(m.interfaces(), "127.0.0.1") || slices.Contains(m.Names(), "0.0.0.0") {
			t.Errorf("%s: %v %v", listen, m.interfaces(), m.Names())
		}
	}
}

// An address that comes later is learned from who comes by it: a private one, while all
// are listened on, and so many.
func TestNamesLearned(t *testing.T) {
	cfg := config.Default()
	cfg.Listen = []string{"[::]:5222"}
	m := &Machine{Config: func() *config.Config { return cfg }}
	m.Own = []string{"203.0.113.5"}
	for ip, want := range map[string]bool{"192.168.1.7": true, "fd00::7": true, "203.0.113.5": true, "203.0.113.6": false, "127.0.0.5": false, "fe80::1": false, "::": false, "2001:db8::1": false} {
		if m.learn(netip.MustParseAddr(ip)) != want {
			t.Errorf("%s is learned: %v", ip, !want)
		}
	}
	for i := range 2 * maxOwn {
		m.learn(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	if n := len(m.interfaces()); n != maxOwn {
		t.Errorf("%d addresses", n)
	}
	cfg.Listen = []string{"192.168.1.2:5222"}
	if m.learn(netip.MustParseAddr("203.0.113.5")) || m.interfaces() != nil {
		t.Error("addresses that are not listened on")
	}
}

// A CA that may sign for everything gives way once domains are listed, with a word; the old one
// stays beside the new.
func TestWideCAIsNarrowed(t *testing.T) {
	dir := t.TempDir()
	wide, made := opened(t, dir, nil, nil)
	if !made || wide.Constrained() {
		t.Fatal("no CA for everything was made")
	}
	if _, made := opened(t, dir, nil, nil); made {
		t.Error("the same configuration needed a new one")
	}
	narrow, made := opened(t, dir, []string{"example.org"}, nil)
	if !made || !narrow.Constrained() || !narrow.Narrowed {
		t.Errorf("made %v, constrained %v, said %v", made, narrow.Constrained(), narrow.Narrowed)
	}
	if passes(t, narrow, "other.example", "other.example") {
		t.Error("it signs for others")
	}
	if old, _ := filepath.Glob(filepath.Join(dir, "ca.pem-*")); len(old) != 1 {
		t.Errorf("beside it there is %q", old)
	}
	if again, made := opened(t, dir, []string{"example.org"}, nil); made || again.Narrowed {
		t.Error("it is narrowed twice")
	}
}
