package proxy

import (
	"os"
	"testing"

	"otrproxy/config"
	"otrproxy/otrlayer"
)

// small is a set of so many accounts, and what is known of their logins.
func small(t *testing.T, most int) (*accountSet, *logins, config.Limits) {
	t.Helper()
	cfg := config.Default()
	cfg.State = t.TempDir()
	cfg.Limits.Accounts = most
	inForce := func() *config.Config { return cfg }
	log := newJournal(nil, func() bool { return false })
	v := &vault{}
	ac, lo := newAccountSet(inForce, log, cfg.State, v), newLogins(inForce, log, cfg.State, v)
	ac.bell = newBell(t.Context(), inForce, log, newMetrics("test", Events(), nil), nil)
	ac.handshake, ac.opens, ac.forgotten = func(string) {}, func() {}, lo.passwords.forget
	lo.kin, lo.bell, lo.onceMade = &ac.kin, ac.bell, ac.onceMade
	lo.spawn = func(f func()) bool { f(); return true }
	os.MkdirAll(cfg.State+"/accounts", 0o700)
	return ac, lo, cfg.Limits
}

// A login that comes to no use leaves nothing of an account behind: neither who was first, nor
// a place among the accounts that are kept.
func TestLoginOfNoUseLeavesNothing(t *testing.T) {
	ac, lo, lim := small(t, 1)
	for _, password := range []string{"of the server's people", "of b"} {
		seat, f := ac.sit("b@x.y", lim) // as letIn does
		if f != nil {
			t.Fatal(f)
		}
		if _, err := ac.account("b@x.y"); err != nil {
			t.Fatal(err)
		}
		if who, err := lo.recognise("b@x.y", credentials{"b", password}); who != first || err != nil {
			t.Errorf("%s is %v (0 strange, 1 known, 2 first): %v", password, who, err)
		}
		if _, f := ac.sit("c@x.y", lim); f == nil {
			t.Error("more accounts than are kept may come at once")
		}
		ac.leave(&seat)
		if n := len(ac.opened()); n != 0 {
			t.Errorf("%d accounts are open, of which nobody is there", n)
		}
	}
}

// Who comes first while another session that has done nothing goes is recognised afterwards.
func TestFirstPasswordIsRecognisedThoughAnotherGoes(t *testing.T) {
	ac, lo, lim := small(t, 10)
	const who = "a@x.y"
	creds := credentials{"a", "hers"}
	login := func() *seat { // as letIn does
		ac.account(who)
		lo.recognise(who, creds)
		s, f := ac.sit(who, lim)
		if f != nil {
			t.Fatal(f)
		}
		lo.keepsFirst(who, creds.password)
		return s
	}
	old := login()
	// her client connects again
	ac.account(who)
	if st, err := lo.recognise(who, creds); st == strange || err != nil {
		t.Fatal(st, err)
	}
	ac.leave(&old) // the first connection ends here
	s, f := ac.sit(who, lim)
	if f != nil {
		t.Fatal(f)
	}
	lo.keepsFirst(who, creds.password)
	// and makes use of the account
	a, _ := ac.account(who)
	if err := a.Prepare(); err != nil {
		t.Fatal(err)
	}
	ac.cameToUse(who)
	<-a.Ready()
	lo.passwords.forget(who) // as after a start
	if _, there, err := lo.satisfies(who, creds); !there || err != nil {
		t.Errorf("nothing recognises her password: %v", err)
	}
	if st, _ := lo.recognise(who, credentials{"a", "of the server's people"}); st != strange {
		t.Errorf("who comes with another password is %v (0 strange, 1 known, 2 first)", st)
	}
	ac.leave(&s)
}

// What comes back to a guest behind its confirmation comes to the account.
func TestGuestGivesBackLateToItsPerson(t *testing.T) {
	ac, _, _ := small(t, 10)
	a, err := ac.account("a@x.y")
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
