package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"otrproxy/otrlayer"
	"otrproxy/proxy/control"
)

// A stranger is somebody whom the server has let in with another password than the one known
// here. That may be the person, who has changed it elsewhere; or anybody to whom the server
// opens the account. So they get what the server gives, and nothing of ours, until the
// account's person says that it was them: in another session, with the code that the stranger
// was shown; or there, by the password from before. The administrator may say so, too.
type stranger struct {
	account string
	code    string   // which the person repeats, so that of two strangers they let in the right one; "" for who is turned out
	sum     [32]byte // of the password
	host    string   // from which they came
	since   time.Time
	keep    func() error      // makes their password the account's
	guest   *otrlayer.Account // what their sessions have of it

	// Guarded by passwords.mu.
	sessions map[party]bool
	seen     time.Time // when the last of them came or went
}

// A party is a session of a stranger's, which hears what was decided about them.
type party interface {
	promote(a *otrlayer.Account) // they are the account's person
	turnOut(why string)          // they are not
	Notice(where, text string) bool
}

const (
	maxStrangers   = 8         // of an account: other passwords that wait for a word
	strangerMemory = time.Hour // after the last session; and of a word against one
	maxRefused     = 1000      // passwords that are not wanted
)

// An outcome is what came of a login with another password.
type outcome uint8

const (
	met      outcome = iota // they are a stranger
	isPerson                // somebody has said just now that it is the person
	unwanted                // or that it is not
	tooMany                 // others wait already
)

// meet finds the stranger with a password, or makes st out of them. Fresh says that they are
// new.
func (w *passwords) meet(st *stranger, now time.Time) (_ *stranger, fresh bool, _ outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.waiting(st.account, now)
	i := slices.IndexFunc(list, func(x *stranger) bool { return x.sum == st.sum })
	right, known := w.right[st.account]
	switch {
	case known && right == st.sum:
		return nil, false, isPerson
	case w.unwanted(st.sum, now):
		return nil, false, unwanted
	case i >= 0:
		list[i].seen = now
		return list[i], false, met
	case len(list) >= maxStrangers:
		return nil, false, tooMany
	}
	for st.code == "" || slices.ContainsFunc(list, func(x *stranger) bool { return x.code == st.code }) {
		n, _ := rand.Int(rand.Reader, big.NewInt(9000))
		st.code = fmt.Sprint(1000 + n.Int64())
	}
	st.since, st.seen, st.sessions = now, now, map[party]bool{}
	w.strangers[st.account] = append(list, st)
	return st, true, met
}

// waiting are an account's strangers of whom nobody has said anything yet. The caller holds
// the lock.
func (w *passwords) waiting(account string, now time.Time) []*stranger {
	list := slices.DeleteFunc(w.strangers[account], func(st *stranger) bool {
		return len(st.sessions) == 0 && now.Sub(st.seen) > strangerMemory
	})
	if w.strangers[account] = list; len(list) == 0 {
		delete(w.strangers, account)
	}
	return list
}

// unconfirmed are an account's strangers; those of all for "".
func (w *passwords) unconfirmed(account string) (out []*stranger) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, of := range slices.Sorted(maps.Keys(w.strangers)) {
		if account == "" || of == account {
			out = append(out, w.waiting(of, time.Now())...)
		}
	}
	return out
}

// take ends an account's wait for a word about one of its strangers; nil where there is none
// with that code. As the person's, their password is the one that is known from now on, and
// before is the one until then; else it is not wanted. Their sessions are the caller's.
func (w *passwords) take(account, code string, persons bool) (st *stranger, sessions []party, before *[32]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	list := w.waiting(account, now)
	i := slices.IndexFunc(list, func(x *stranger) bool { return x.code == strings.TrimSpace(code) })
	if i < 0 {
		return nil, nil, nil
	}
	st = list[i]
	if w.strangers[account] = slices.Delete(list, i, i+1); len(w.strangers[account]) == 0 {
		delete(w.strangers, account)
	}
	if right, ok := w.right[account]; ok {
		before = &right
	}
	switch {
	case persons:
		w.right[account] = st.sum
	case len(w.refused) >= maxRefused:
		clear(w.refused)
		fallthrough
	default:
		w.refused[st.sum] = now.Add(strangerMemory)
	}
	return st, slices.Collect(maps.Keys(st.sessions)), before
}

// putBack is for a stranger who was taken and could not be made the person.
func (w *passwords) putBack(st *stranger, before *[32]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.strangers[st.account] = append(w.strangers[st.account], st); before != nil {
		w.right[st.account] = *before
	} else {
		delete(w.right, st.account)
	}
}

// unwanted reports whether the account's person does not want a password to get in. The caller
// holds the lock.
func (w *passwords) unwanted(sum [32]byte, now time.Time) bool {
	until, ok := w.refused[sum]
	if ok && now.After(until) {
		delete(w.refused, sum)
	}
	return ok && !now.After(until)
}

// isRefused is unwanted for those without the lock.
func (w *passwords) isRefused(sum [32]byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unwanted(sum, time.Now())
}

// strange makes a stranger of who has logged in with another password. What would be kept of
// it, once they are confirmed, is found now: the password itself is gone after the login.
func (lo *logins) strange(a *otrlayer.Account, how, host string, creds credentials, up *server) (_ *stranger, fresh bool, _ outcome) {
	account, sum := a.JID(), lo.passwords.sum(a.JID(), creds.password)
	v := verifier{Password: hashPassword(creds.password)}
	keys := enrolments{}
	if e, err := lo.enrolled(account); err == nil && e != nil {
		if e := up.enrolment(creds, how); e != nil {
			keys = enrolments{*e}
		}
	}
	return lo.passwords.meet(&stranger{account: account, sum: sum, host: host, guest: a.Guest(), keep: func() error {
		lo.remembering.Lock()
		defer lo.remembering.Unlock()
		err := lo.saveVerifier(account, v)
		old, err2 := lo.enrolled(account)
		if err == nil && err2 == nil && old != nil { // it stays enrolled, or waits for the next login with the password
			err2 = lo.saveEnrolments(account, keys)
		}
		return errors.Join(err, err2)
	}}, time.Now())
}

// joins notes a session of a stranger's; false where somebody has decided about them since
// the login.
func (w *passwords) joins(st *stranger, s party) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.strangers[st.account], st) {
		return false
	}
	st.sessions[s], st.seen = true, time.Now()
	return true
}

// leaves notes that it has ended.
func (w *passwords) leaves(st *stranger, s party) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(st.sessions, s)
	st.seen = time.Now()
}

// confirm makes a stranger the account's person: their password is the one that is known from
// now on, and their sessions get what is the account's. By the administrator's word, whoever
// is there with another one is not the person.
func (r *relay) confirm(account, code string, administrator bool) error {
	a, err := r.accounts.account(account)
	if err != nil {
		return err
	}
	st, sessions, before := r.logins.passwords.take(account, code, true)
	if st == nil {
		return errNoStranger
	}
	if err := st.keep(); err != nil {
		r.logins.passwords.putBack(st, before)
		return fmt.Errorf("that it was you could not be remembered: %w", err)
	}
	if administrator {
		r.logins.passwords.begins(account) // for those who are just logging in
		for _, s := range r.sessionsOf(account) {
			if s.password != st.sum {
				s.turnOut(notThePerson)
			}
		}
	}
	for _, s := range sessions {
		s.promote(a)
		s.Notice(serviceJID, "Thank you: this is you. Your private conversations are open here, too, and the password of this login is the one I know from now on.")
	}
	a.Inherit(st.guest)
	r.log.Info("a login with another password was confirmed", "account", r.log.name(account))
	r.bell.changed()
	return nil
}

// notThePerson is told to who is turned out.
const notThePerson = "The administrator has said that another password is this account's."

// turnOut ends a session of somebody who is not the account's person. From now on, nothing of
// the account reaches them: the end may have to wait for the server.
func (s *session) turnOut(why string) {
	s.demote()
	s.endBeside("not-authorized", why)
}

var errNoStranger = errors.New("nobody waits with this code; it stands in the message that the other login got")

// refuseLogin ends a stranger's sessions, and lets nobody in with that password for a while.
func (r *relay) refuseLogin(account, code string) error {
	st, sessions, _ := r.logins.passwords.take(account, code, false)
	if st == nil {
		return errNoStranger
	}
	for _, s := range sessions {
		s.turnOut(refusedPassword)
	}
	r.log.Warn("a login with another password was refused by the account's person", "account", r.log.name(account))
	r.bell.changed()
	return nil
}

// refusedPassword is told to who comes with one.
const refusedPassword = "The person of this account does not want anybody to get in with this password."

// tellOfStranger tells an account's people of somebody who has come.
func (r *relay) tellOfStranger(st *stranger) {
	for _, s := range r.sessionsOf(st.account) {
		s.Notice(serviceJID, st.told())
	}
	r.bell.happened(EventLoginUnknown, st.account, bareDomain(st.account))
	r.log.Warn("the server has let somebody in with another password than the one known here", "account", r.log.name(st.account))
}

// from is where they came from, in words.
func (st *stranger) from() string {
	if st.host == "" {
		return ""
	}
	return " from " + st.host
}

// told is what the account's person is told of a stranger.
func (st *stranger) told() string {
	return "Somebody logged in as you" + st.from() + ", with another password than yours, and the server let them in. They see nothing private. " +
		"Was it you? Write: login confirm " + st.code + ". If not: login refuse " + st.code
}

// shown is what a stranger is told.
func (st *stranger) shown() string {
	if st.code == "" {
		return notThePerson
	}
	return "You logged in with another password than the one I know, so your private conversations stay closed here. Your code is " + st.code + ". " +
		"Where you are logged in already, write to me: login confirm " + st.code + ". Or write here: prove, and the password from before."
}

// decided is for a stranger of whom somebody has said who they are while they logged in.
func (s *session) decided(st *stranger) {
	a, err := s.r.accounts.account(s.jid)
	if right, ok := s.r.logins.passwords.of(s.jid); ok && right == st.sum && err == nil {
		s.promote(a)
		return
	}
	s.turnOut(refusedPassword)
}

// leaves notes the end of a stranger's session.
func (s *session) leaves() {
	if st := s.stranger.Load(); st != nil {
		s.r.logins.passwords.leaves(st, s)
	}
}

// greetsStrangers tells a session that has come what there is to say of strangers: theirs, or that
// they are one.
func (s *session) greetsStrangers() {
	if st := s.stranger.Load(); st != nil {
		s.Notice(serviceJID, st.shown())
		return
	}
	for _, st := range s.r.logins.passwords.unconfirmed(s.jid) {
		s.Notice(serviceJID, st.told())
	}
}

// strangerDecisions are the logins with other passwords that wait for a word.
func (k *desk) strangerDecisions(account string) (out []control.Decision) {
	for _, st := range k.logins.passwords.unconfirmed(account) {
		text := st.told()
		if account == "" {
			text = fmt.Sprintf("somebody logged in as %s%s with another password than the one known here, and the server let them in; they see nothing private. "+
				"If it was them, with the code %s: otrproxy login confirm %s %s; if not: otrproxy login refuse %s %s", st.account, st.from(), st.code, st.account, st.code, st.account, st.code)
		}
		out = append(out, control.Decision{Kind: "login-unknown", Account: st.account, Code: st.code, Text: text})
	}
	return out
}

// strangersTable is all that a stranger can ask of us.
func (s *session) strangersTable() control.Table {
	var t control.Table
	t = control.Table{
		{Name: "help", Help: "lists the commands", Chat: true, Reads: true, Args: []control.Arg{{Name: "command", Kind: control.Rest, Optional: true, Label: "Which one"}},
			Run: func(_ context.Context, c control.Call) (control.Reply, error) {
				r, err := t.HelpFor(c)
				if st := s.stranger.Load(); st != nil && c.Arg("command") == "" {
					r.Text = st.shown() + "\n" + r.Text
				}
				return r, err
			}},
		{Name: "login prove", Short: "prove", Help: "shows that this is your account, by the password you had before; it stays on this machine", Chat: true,
			Args: []control.Arg{{Name: "password", Kind: control.Secret, Label: "The password from before"}}, Run: s.prove},
	}
	return t
}

// prove takes the password from before from somebody who has logged in with another one.
func (s *session) prove(ctx context.Context, c control.Call) (control.Reply, error) {
	st := s.stranger.Load()
	if st == nil {
		return control.Did("There is nothing to prove any more.")
	}
	t := s.r.logins.guesses.turn(ctx, guessed{s.jid, s.place}, s.r.logins.passwords.sum(s.jid, c.Arg("password")), commandLimit/2)
	if t == nil {
		s.r.metrics.refused(RefusedLogins)
		return control.Reply{}, errors.New("too many wrong passwords were tried; wait a minute")
	}
	defer t.over()
	local, _, _ := strings.Cut(s.jid, "@")
	fits, there, err := s.r.logins.satisfies(s.jid, credentials{local, c.Arg("password")})
	if err != nil {
		return control.Reply{}, err
	}
	if !fits || !there {
		t.wrong()
		return control.Reply{}, errors.New("this is not the password I know; if you have forgotten it, the administrator can help: otrproxy login confirm " + s.jid + " " + st.code)
	}
	t.right()
	if err := s.r.confirm(s.jid, st.code, false); err != nil && !errors.Is(err, errNoStranger) {
		return control.Reply{}, err
	}
	return control.Reply{}, nil // confirm has said it
}
