package proxy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/stanza"
)

// Who never logs in has no pin written, whatever names they make up.
func TestNamesWithoutALoginLeaveNoPin(t *testing.T) {
	t.Parallel()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	made := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"*.evil.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, _ := x509.CreateCertificate(rand.Reader, made, made, &key.PublicKey, key)
	leaf, _ := x509.ParseCertificate(der)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	s := startServer(t, server.Config{Domain: "name1.evil.example", Users: map[string]string{"alice": "x"}, Cert: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}})
	dir := stateDir(t)
	b := startWith(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\n", dir), proxy.Options{Roots: roots,
		Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, fmt.Errorf("no DNS") }},
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.Addr())
		}})
	try := func(name, password string) error {
		cfg := b.config("alice", client.Plain)
		cfg.JID, cfg.Password = "alice@"+name+".evil.example", password
		c, err := client.Dial(t.Context(), cfg)
		if err == nil {
			t.Cleanup(c.Drop)
		}
		return err
	}
	for i := range 30 {
		if err := try(fmt.Sprint("name", i), "not this one"); err == nil {
			t.Fatal("let in")
		}
	}
	pins := func() int {
		file, _ := os.ReadFile(filepath.Join(dir, "pins.yaml"))
		return bytes.Count(file, []byte("first-use"))
	}
	if n := pins(); n != 0 {
		t.Errorf("%d pins of names nobody has logged in to", n)
	}
	if err := try("name1", "x"); err != nil {
		t.Fatal(err)
	}
	if n := pins(); n != 1 {
		t.Errorf("%d pins after a login", n)
	}
}

// An account that logs in and does nothing leaves nothing behind; one that is used is kept, up
// to the limit, and those that are kept go on.
func TestAccountsThatDoNothingLeaveNothing(t *testing.T) {
	t.Parallel()
	u := usersAnd(20)
	s := startServer(t, server.Config{Users: u})
	b := startProxy(t, s, "limits: {accounts: 4}\n") // three are there
	in := func(user string, quiet bool) (*client.Client, error) {
		cfg := b.config(user, client.Plain)
		cfg.Password, cfg.Quiet = u[user], quiet
		return client.Dial(t.Context(), cfg)
	}
	kept := func() int {
		list, err := os.ReadDir(filepath.Join(b.state, "accounts"))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := kept()
	for i := range 20 {
		c, err := in(fmt.Sprint("u", i), true)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		b.counts("otrproxy_sessions", "0")
	}
	if n := kept(); n != before {
		t.Errorf("%d directories are left", n-before)
	}
	if n := b.p.Open(); n != 0 {
		t.Errorf("%d accounts are kept in memory", n)
	}
	c, err := in("u1", false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Drop)
	seen(c)
	if n := kept(); n != before+1 {
		t.Errorf("%d directories of one that is used", n-before)
	}
	_, err = in("u2", false)
	if got := refusedWith(t, err); !strings.Contains(got, "limits.accounts") {
		t.Errorf("one too many is told %q", got)
	}
	for _, user := range []string{"alice", "u1"} {
		c, err := in(user, false)
		if err != nil {
			t.Errorf("%s: %v", user, err)
			continue
		}
		t.Cleanup(c.Drop)
	}
}

// Logins that come at once get no more sessions of an account than one after the other.
func TestSessionsOfAnAccountAreLimitedAtOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "limits: {per_account: 3}\n")
	var in atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			cfg := b.config("alice", client.Plain)
			cfg.Resource = fmt.Sprint("r", i)
			if c, err := client.Dial(t.Context(), cfg); err == nil {
				in.Add(1)
				t.Cleanup(c.Drop)
			}
		})
	}
	wg.Wait()
	if n := in.Load(); n != 3 {
		t.Errorf("%d sessions", n)
	}
}

// Clients that ask for no resource are each their own: none goes on with the broken session
// of another one, and what was on its way is told.
func TestClientsWithoutAResourceAreTheirOwn(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{})
	s.SetFaults(server.Faults{Unconfirmed: true})
	b := startProxy(t, s, "otr: [{policy: never}]\n")
	in := func() *client.Client {
		cfg := b.config("alice", client.Plain)
		cfg.Resource = ""
		c, err := client.Dial(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Drop)
		return c
	}
	first := in()
	first.Say("bob@"+domain, "mine", "under way")
	if !s.Wait(func(r []byte) bool { return bytes.Contains(r, []byte("under way")) }) {
		t.Fatal("it did not leave")
	}
	s.Cut()
	st, err := first.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "mine" })
	if err != nil || st.Root().Attr("type") != "error" {
		t.Errorf("what was on its way: %v", err)
	}
	in()
	for _, result := range []string{"resumed", "refused"} {
		if got := metric(b, `otrproxy_upstream_resumptions_total{result="`+result+`"}`); got != "0" {
			t.Errorf("%s sessions %s", got, result)
		}
	}
}

// What others can have us keep is told, with the most of it, to the person and among the
// figures.
func TestWhatIsKeptIsTold(t *testing.T) {
	t.Parallel()
	s, alice, _, b := private(t, "")
	s.Send("alice", "<iq type='set' id='p'><query xmlns='jabber:iq:roster'><item jid='one@example.org' subscription='both'/></query></iq>")
	if _, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "p" }); err != nil {
		t.Fatal(err)
	}
	st := statusOf(t, b)
	has := map[string]int{}
	for _, l := range st.Kept {
		has[l.What] = l.Now
		if l.Most == 0 && l.What != "texts" {
			t.Errorf("%s has no bound", l.What)
		}
		if got := metric(b, `otrproxy_kept{what="`+l.What+`"}`); got != fmt.Sprint(l.Now) {
			t.Errorf("%s: %s among the figures, %d in status", l.What, got, l.Now)
		}
	}
	if has["contacts"] < 3 || has["written_to"] != 1 || has["accounts"] != 3 {
		t.Errorf("kept: %v", has)
	}
	if r, err := admin(t, b.p, "status"); err != nil || !strings.Contains(r.Text, "Kept: ") {
		t.Errorf("%v %s", err, r.Text)
	}
	for _, what := range []string{"lines", "asks_delayed", "answers"} {
		if metric(b, `otrproxy_spared_total{what="`+what+`"}`) == "" {
			t.Errorf("no figure of %s", what)
		}
	}
}

// limits.accounts holds for logins that come to use at once.
func TestAccountsAreLimitedAtOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{Users: usersAnd(10)})
	b := startProxy(t, s, "limits: {accounts: 4}\n") // three are there
	var in []*client.Client
	for i := range 10 {
		cfg := b.config(fmt.Sprint("u", i), client.Plain)
		cfg.Password, cfg.Quiet = "x", true
		c, err := client.Dial(t.Context(), cfg)
		if err != nil {
			continue
		}
		t.Cleanup(c.Drop)
		in = append(in, c)
	}
	for _, c := range in {
		c.Send("<presence/>")
		everything(t, c)
	}
	list, _ := os.ReadDir(filepath.Join(b.state, "accounts"))
	if len(list) > 4 {
		t.Errorf("%d accounts are kept", len(list))
	}
}
