package sasl

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"otrproxy/otrlayer"
)

// A Stranger is somebody whom the server has let in with another password than the one known
// here. That may be the person, who has changed it elsewhere; or anybody to whom the server
// opens the account. So they get what the server gives, and nothing of ours, until the
// account's person says that it was them: in another session, with the code that the stranger
// was shown; or there, by the password from before. The administrator may say so, too.
type Stranger struct {
	Account string
	Code    string   // which the person repeats, so that of two strangers they let in the right one; "" for who is turned out
	Sum     [32]byte // of the password
	host    string   // from which they came
	since   time.Time
	Keep    func() error      // makes their password the account's
	Guest   *otrlayer.Account // what their sessions have of it

	// Guarded by passwords.mu.
	sessions map[Party]bool
	seen     time.Time // when the last of them came or went
}

// A Party is a session of a stranger's, which hears what was decided about them.
type Party interface {
	Promote(a *otrlayer.Account) // they are the account's person
	TurnOut(why string)          // they are not
	Say(where, line string) bool
}

// Bounds of strangers.
const (
	MaxStrangers   = 8         // of an account: other passwords that wait for a word
	strangerMemory = time.Hour // after the last session; and of a word against one
	maxRefused     = 1000      // passwords that are not wanted
)

// An Outcome is what came of a login with another password.
type Outcome uint8

// What may come of it.
const (
	met      Outcome = iota // they are a stranger
	IsPerson                // somebody has said just now that it is the person
	Unwanted                // or that it is not
	TooMany                 // others wait already
)

// meet finds the stranger with a password, or makes st out of them. Fresh says that they are
// new.
func (w *Passwords) meet(st *Stranger, now time.Time) (_ *Stranger, fresh bool, _ Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.waiting(st.Account, now)
	i := slices.IndexFunc(list, func(x *Stranger) bool { return x.Sum == st.Sum })
	right, known := w.right[st.Account]
	switch {
	case known && right == st.Sum:
		return nil, false, IsPerson
	case w.unwanted(st.Sum, now):
		return nil, false, Unwanted
	case i >= 0:
		list[i].seen = now
		return list[i], false, met
	case len(list) >= MaxStrangers:
		return nil, false, TooMany
	}
	for st.Code == "" || slices.ContainsFunc(list, func(x *Stranger) bool { return x.Code == st.Code }) {
		n, _ := rand.Int(rand.Reader, big.NewInt(9000))
		st.Code = fmt.Sprint(1000 + n.Int64())
	}
	st.since, st.seen, st.sessions = now, now, map[Party]bool{}
	w.strangers[st.Account] = append(list, st)
	return st, true, met
}

// waiting are an account's strangers of whom nobody has said anything yet. The caller holds
// the lock.
func (w *Passwords) waiting(account string, now time.Time) []*Stranger {
	list := slices.DeleteFunc(w.strangers[account], func(st *Stranger) bool {
		return len(st.sessions) == 0 && now.Sub(st.seen) > strangerMemory
	})
	if w.strangers[account] = list; len(list) == 0 {
		delete(w.strangers, account)
	}
	return list
}

// Unconfirmed are an account's strangers; those of all for "".
func (w *Passwords) Unconfirmed(account string) (out []*Stranger) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, of := range slices.Sorted(maps.Keys(w.strangers)) {
		if account == "" || of == account {
			out = append(out, w.waiting(of, time.Now())...)
		}
	}
	return out
}

// Take ends an account's wait for a word about one of its strangers; nil where there is none
// with that code. As the person's, their password is the one that is known from now on, and
// before is the one until then; else it is not wanted. Their sessions are the caller's.
func (w *Passwords) Take(account, code string, persons bool) (st *Stranger, sessions []Party, before *[32]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	list := w.waiting(account, now)
	i := slices.IndexFunc(list, func(x *Stranger) bool { return x.Code == strings.TrimSpace(code) })
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
		w.right[account] = st.Sum
	case len(w.refused) >= maxRefused:
		clear(w.refused)
		fallthrough
	default:
		w.refused[st.Sum] = now.Add(strangerMemory)
	}
	return st, slices.Collect(maps.Keys(st.sessions)), before
}

// PutBack is for a stranger who was taken and could not be made the person.
func (w *Passwords) PutBack(st *Stranger, before *[32]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.strangers[st.Account] = append(w.strangers[st.Account], st); before != nil {
		w.right[st.Account] = *before
	} else {
		delete(w.right, st.Account)
	}
}

// unwanted reports whether the account's person does not want a password to get in. The caller
// holds the lock.
func (w *Passwords) unwanted(sum [32]byte, now time.Time) bool {
	until, ok := w.refused[sum]
	if ok && now.After(until) {
		delete(w.refused, sum)
	}
	return ok && !now.After(until)
}

// IsRefused is unwanted for those without the lock.
func (w *Passwords) IsRefused(sum [32]byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unwanted(sum, time.Now())
}

// Strange makes a stranger of who has logged in with another password. What would be kept of
// it, once they are confirmed, is found now: the password itself is gone after the login.
func (lo *Logins) Strange(a *otrlayer.Account, how, host string, creds Credentials, up *Server) (_ *Stranger, fresh bool, _ Outcome) {
	account, sum := a.JID(), lo.Passwords.Sum(a.JID(), creds.Password)
	v := verifier{Password: hashPassword(creds.Password)}
	keys := Enrolments{}
	if e, err := lo.Enrolled(account); err == nil && e != nil {
		if e := up.Enrolment(creds, how); e != nil {
			keys = Enrolments{*e}
		}
	}
	return lo.Passwords.meet(&Stranger{Account: account, Sum: sum, host: host, Guest: a.Guest(), Keep: func() error {
		lo.remembering.Lock()
		defer lo.remembering.Unlock()
		err := lo.saveVerifier(account, v)
		old, err2 := lo.Enrolled(account)
		if err == nil && err2 == nil && old != nil { // it stays enrolled, or waits for the next login with the password
			err2 = lo.saveEnrolments(account, keys)
		}
		return errors.Join(err, err2)
	}}, time.Now())
}

// Joins notes a session of a stranger's; false where somebody has decided about them since
// the login.
func (w *Passwords) Joins(st *Stranger, s Party) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.strangers[st.Account], st) {
		return false
	}
	st.sessions[s], st.seen = true, time.Now()
	return true
}

// Leaves notes that it has ended.
func (w *Passwords) Leaves(st *Stranger, s Party) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(st.sessions, s)
	st.seen = time.Now()
}

// NotThePerson is told to who is turned out.
const NotThePerson = "The administrator has said that another password is this account's."

// RefusedPassword is told to who comes with one.
const RefusedPassword = "The person of this account does not want anybody to get in with this password."

// From is where they came from, in words.
func (st *Stranger) From() string {
	if st.host == "" {
		return ""
	}
	return " from " + st.host
}

// Told is what the account's person is told of a stranger.
func (st *Stranger) Told() string {
	return "Somebody logged in as you" + st.From() + ", with another password than yours, and the server let them in. They see nothing private. " +
		"Was it you? Write: login confirm " + st.Code + ". If not: login refuse " + st.Code
}

// Shown is what a stranger is told.
func (st *Stranger) Shown() string {
	if st.Code == "" {
		return NotThePerson
	}
	return "You logged in with another password than the one I know, so your private conversations stay closed here. Your code is " + st.Code + ". " +
		"Where you are logged in already, write to me: login confirm " + st.Code + ". Or write here: prove, and the password from before."
}
