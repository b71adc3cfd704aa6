package accounts

import (
	"os"
	"testing"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/metrics"
	"otrproxy/proxy/notify"
	"otrproxy/proxy/sasl"
	"otrproxy/proxy/state"
)

// small is a set of so many accounts, and what is known of their logins.
func small(t *testing.T, most int) (*Set, *sasl.Logins, config.Limits) {
	t.Helper()
	cfg := config.Default()
	cfg.State = t.TempDir()
	cfg.Limits.Accounts = most
	inForce := func() *config.Config { return cfg }
	log := journal.New(nil, func() bool { return false })
	v := &state.Vault{}
	ac, lo := New(inForce, log, cfg.State, v), sasl.New(inForce, log, cfg.State, v)
	ac.Bell = notify.New(t.Context(), inForce, log, metrics.New("test", notify.Events(), nil), nil)
	ac.Handshake, ac.Opens, ac.Forgotten = func(string) {}, func() {}, lo.Passwords.Forget
	lo.Accounts, lo.Bell, lo.OnceMade = &ac.Kept, ac.Bell, ac.OnceMade
	lo.Spawn = func(f func()) bool { f(); return true }
	os.MkdirAll(cfg.State+"/accounts", 0o700)
	return ac, lo, cfg.Limits
}

// A login that comes to no use leaves nothing of an account behind: neither who was first, nor
// a place among the accounts that are kept.
func TestLoginOfNoUseLeavesNothing(t *testing.T) {
	ac, lo, lim := small(t, 1)
	for _, password := range []string{"of the server's people", "of b"} {
		seat, f := ac.Sit("b@x.y", lim) // as letIn does
		if f != nil {
			t.Fatal(f)
		}
		if _, err := ac.Open("b@x.y"); err != nil {
			t.Fatal(err)
		}
		if who, err := lo.Recognise("b@x.y", sasl.Credentials{User: "b", Password: password}); who != sasl.First || err != nil {
			t.Errorf("%s is %v (0 strange, 1 known, 2 first): %v", password, who, err)
		}
		if _, f := ac.Sit("c@x.y", lim); f == nil {
			t.Error("more accounts than are kept may come at once")
		}
		ac.Leave(&seat)
		if n := len(ac.Opened()); n != 0 {
			t.Errorf("%d accounts are open, of which nobody is there", n)
		}
	}
}

// Who comes first while another session that has done nothing goes is recognised afterwards.
func TestFirstPasswordIsRecognisedThoughAnotherGoes(t *testing.T) {
	ac, lo, lim := small(t, 10)
	const who = "a@x.y"
	creds := sasl.Credentials{User: "a", Password: "hers"}
	login := func() *Seat { // as letIn does
		ac.Open(who)
		lo.Recognise(who, creds)
		s, f := ac.Sit(who, lim)
		if f != nil {
			t.Fatal(f)
		}
		lo.KeepsFirst(who, creds.Password)
		return s
	}
	old := login()
	// her client connects again
	ac.Open(who)
	if st, err := lo.Recognise(who, creds); st == sasl.Strange || err != nil {
		t.Fatal(st, err)
	}
	ac.Leave(&old) // the first connection ends here
	s, f := ac.Sit(who, lim)
	if f != nil {
		t.Fatal(f)
	}
	lo.KeepsFirst(who, creds.Password)
	// and makes use of the account
	a, _ := ac.Open(who)
	if err := a.Prepare(); err != nil {
		t.Fatal(err)
	}
	ac.CameToUse(who)
	<-a.Ready()
	lo.Passwords.Forget(who) // as after a start
	if _, there, err := lo.Satisfies(who, creds); !there || err != nil {
		t.Errorf("nothing recognises her password: %v", err)
	}
	if st, _ := lo.Recognise(who, sasl.Credentials{User: "a", Password: "of the server's people"}); st != sasl.Strange {
		t.Errorf("who comes with another password is %v (0 strange, 1 known, 2 first)", st)
	}
	ac.Leave(&s)
}

// What comes back to a guest that was confirmed meanwhile comes to the account.
func TestGuestGivesBackLateToItsPerson(t *testing.T) {
	ac, _, _ := small(t, 10)
	a, err := ac.Open("a@x.y")
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
