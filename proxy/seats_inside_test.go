package proxy

import (
	"net"
	"os"
	"testing"
	"time"

	"otrproxy/config"
	"otrproxy/otrlayer"
)

// smallProxy is a proxy that is not started and keeps so many accounts.
func smallProxy(t *testing.T, accounts int) *Proxy {
	t.Helper()
	cfg := config.Default()
	cfg.State = t.TempDir()
	cfg.Limits.Accounts = accounts
	p := furnished(cfg, Options{})
	os.MkdirAll(cfg.State+"/accounts", 0o700)
	return p
}

// A login that comes to no use leaves nothing of an account behind: neither who was first, nor
// a place among the accounts that are kept.
func TestLoginOfNoUseLeavesNothing(t *testing.T) {
	p := smallProxy(t, 1)
	lim := p.Config().Limits
	for _, password := range []string{"of the server's people", "of b"} {
		seat, f := p.accounts.sit("b@x.y", lim) // as letIn does
		if f != nil {
			t.Fatal(f)
		}
		if _, err := p.accounts.account("b@x.y"); err != nil {
			t.Fatal(err)
		}
		if who, err := p.logins.recognise("b@x.y", credentials{"b", password}); who != first || err != nil {
			t.Errorf("%s is %v (0 strange, 1 known, 2 first): %v", password, who, err)
		}
		if _, f := p.accounts.sit("c@x.y", lim); f == nil {
			t.Error("more accounts than are kept may come at once")
		}
		p.accounts.leave(&seat)
		if n := p.Open(); n != 0 {
			t.Errorf("%d accounts are open, of which nobody is there", n)
		}
	}
}

// Who comes first while another session that has done nothing goes is recognised afterwards.
func TestFirstPasswordIsRecognisedThoughAnotherGoes(t *testing.T) {
	p := smallProxy(t, 10)
	lim := p.Config().Limits
	const who = "a@x.y"
	creds := credentials{"a", "hers"}
	login := func() *seat { // as letIn does
		p.accounts.account(who)
		p.logins.recognise(who, creds)
		s, f := p.accounts.sit(who, lim)
		if f != nil {
			t.Fatal(f)
		}
		p.logins.keepsFirst(who, creds.password)
		return s
	}
	old := login()
	// her client connects again
	p.accounts.account(who)
	if st, err := p.logins.recognise(who, creds); st == strange || err != nil {
		t.Fatal(st, err)
	}
	p.accounts.leave(&old) // the first connection ends here
	s, f := p.accounts.sit(who, lim)
	if f != nil {
		t.Fatal(f)
	}
	p.logins.keepsFirst(who, creds.password)
	// and makes use of the account
	a, _ := p.accounts.account(who)
	if err := a.Prepare(); err != nil {
		t.Fatal(err)
	}
	p.accounts.mu.Lock()
	later := p.accounts.unmade[who]
	delete(p.accounts.unmade, who)
	p.accounts.mu.Unlock()
	for _, f := range later {
		f()
	}
	<-a.Ready()
	if v, err := p.logins.verifierOf(who); v == nil || err != nil {
		t.Errorf("nothing recognises her password: %v %v", v, err)
	}
	if st, _ := p.logins.recognise(who, credentials{"a", "of the server's people"}); st != strange {
		t.Errorf("who comes with another password is %v (0 strange, 1 known, 2 first)", st)
	}
	p.accounts.leave(&s)
}

// What comes back to a guest behind its confirmation comes to the account.
func TestGuestGivesBackLateToItsPerson(t *testing.T) {
	p := smallProxy(t, 10)
	a, err := p.accounts.account("a@x.y")
	if err != nil {
		t.Fatal(err)
	}
	g := a.Guest()
	a.Inherit(g)                                                                                              // confirm: the stranger's session has parted already
	g.GiveBack(otrlayer.CauseUncertain, &otrlayer.Message{Contact: "b@x.y", To: "b@x.y", ID: "1", Text: "x"}) // as relay does after part
	if a.Owed() != 1 {
		t.Errorf("the account owes %d, the guest that nobody has any more %d", a.Owed(), g.Owed())
	}
}

// A connection that was let in, refused behind that, and let in again counts once.
func TestConnectionThatTriesAgainCountsOnce(t *testing.T) {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	g := newGate(newJournal(nil, nil), func() bool { return false }, func(RefusedCause) {})
	lim := config.Default().Limits
	v, _ := g.admit(conn, lim)
	g.settle(v, lim) // letIn, which says "unwanted" by again(): another try is open
	g.settle(v, lim) // letIn, with another password
	g.leave(v)
	if g.settled != 0 {
		t.Errorf("%d sessions are counted, and nobody is there", g.settled)
	}
}

// An account that is made while they are counted is counted once.
func TestAccountIsCountedOnce(t *testing.T) {
	state := t.TempDir()
	if err := os.MkdirAll(otrlayer.Dir(state, "alice@example.org"), 0o700); err != nil {
		t.Fatal(err)
	}
	before := time.Now().Add(-time.Hour) // when that was
	if err := os.Chtimes(otrlayer.AccountsDir(state), before, before); err != nil {
		t.Fatal(err)
	}
	var k kin
	counted := k.count(state)
	k.more() // whoever made it says so
	k.until = time.Time{}
	if again := k.count(state); counted != 1 || again != 1 {
		t.Errorf("%d, then %d accounts", counted, again)
	}
	if err := os.MkdirAll(otrlayer.Dir(state, "bob@example.org"), 0o700); err != nil {
		t.Fatal(err)
	}
	if list := k.at(state, "example.org"); len(list) != 2 {
		t.Errorf("there are %q", list)
	}
}
