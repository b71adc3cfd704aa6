package sasl

import (
	"bytes"
	"crypto/hmac"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/atomicwriter"
	"github.com/xdg-go/scram"
	"go.yaml.in/yaml/v3"

	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/address"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/notify"
	"otrproxy/proxy/state"
)

// What is remembered of an account's logins, in its directory: how strong they were
// (login.yaml), for an enrolled account what verifies a SCRAM login (login.keys), and what
// recognises its password (login.verifier, see verifier.go). Where there is a passphrase the
// last two are encrypted (.age). There is no password in any of them.

const (
	loginFile = "login.yaml"
	keysFile  = "login.keys"
	sealedExt = ".age"
)

const (
	byPassword Strength = iota // PLAIN: the server is handed the password
	byProof                    // SCRAM
	byBinding                  // SCRAM with channel binding
)

var strengths = []string{"plain", "scram", "bound"}

func (lo *Logins) loginPath(account, name string) string {
	return filepath.Join(keyring.Dir(lo.dir, account), name)
}

// readLogin reads a file that may be encrypted; nil where there is none.
func (lo *Logins) readLogin(account, name string) (path string, b []byte, err error) {
	path = lo.loginPath(account, name)
	b, err = state.ReadPrivate(path + sealedExt)
	if err == nil && b != nil {
		path += sealedExt
		b, err = lo.vault.Open(b)
	} else if err == nil {
		b, err = state.ReadPrivate(path)
	}
	return path, b, err
}

// saveSealed saves a file encrypted where there is a passphrase, and nowhere in clear then.
func (lo *Logins) saveSealed(account, name string, b []byte) error {
	path := lo.loginPath(account, name)
	if !lo.vault.Sealing() {
		return errors.Join(lo.saveLogin(account, name, b), removed(path+sealedExt))
	}
	b, err := lo.vault.Seal(b)
	if err != nil {
		return err
	}
	return errors.Join(lo.saveLogin(account, name+sealedExt, b), removed(path))
}

func (lo *Logins) saveLogin(account, name string, b []byte) error {
	dir := keyring.Dir(lo.dir, account)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return atomicwriter.WriteFile(filepath.Join(dir, name), b, 0o600)
}

// An Enrolment is what verifies one SCRAM login and continues it to the server: what the
// server itself keeps of a password (RFC 5802 section 3), and beside it our own (ownkeys.go).
// One without, of an earlier version, waits for the next login with the password.
type Enrolment struct {
	Mechanism  string `yaml:"mechanism"`
	Salt       []byte `yaml:"salt"`
	Iterations int    `yaml:"iterations"`
	StoredKey  []byte `yaml:"stored_key"`
	ServerKey  []byte `yaml:"server_key"`

	Own *ownKeys `yaml:"own,omitempty"`
}

// Enrolments are those of an account, by mechanism.
type Enrolments []Enrolment

func (e Enrolments) of(mechanism string) *Enrolment {
	i := slices.IndexFunc(e, func(x Enrolment) bool { return x.Mechanism == strings.TrimSuffix(mechanism, "-PLUS") })
	if i < 0 {
		return nil
	}
	return &e[i]
}

// Proves is the one by which a client can prove its password; nil for none.
func (e Enrolments) Proves(mechanism string) *Enrolment {
	if k := e.of(mechanism); k != nil && k.Own != nil {
		return k
	}
	return nil
}

// Enrolled reads them; none for an account that is not enrolled.
func (lo *Logins) Enrolled(account string) (Enrolments, error) {
	path, b, err := lo.readLogin(account, keysFile)
	if err != nil || b == nil {
		return nil, err
	}
	var out Enrolments
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&out); err != nil {
		return nil, fmt.Errorf("%s is damaged; restore it from a backup, or remove it and enrol the account anew", path)
	}
	if len(out) > 0 && !out.sound() {
		return nil, fmt.Errorf("%s is damaged; restore it from a backup, or remove it and enrol the account anew", path)
	}
	return out, nil
}

// sound reports whether there are keys, and each of them can be some.
func (e Enrolments) sound() bool {
	return len(e) > 0 && !slices.ContainsFunc(e, func(k Enrolment) bool {
		m := MechanismOf(k.Mechanism)
		return m == nil || k.Iterations < 1 || k.Iterations > maxIterations || len(k.StoredKey) != m.new().Size() || len(k.ServerKey) != m.new().Size() || k.Own != nil && !k.Own.sound(m)
	})
}

// fit reports whether a password is the one that the keys were made of.
func (e Enrolments) fit(c Credentials) bool {
	return slices.ContainsFunc(e, func(k Enrolment) bool {
		m := MechanismOf(k.Mechanism)
		client, le := m.client(c)
		if le != nil {
			return false
		}
		made, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(k.Salt), Iters: k.Iterations})
		return err == nil && hmac.Equal(made.StoredKey, k.StoredKey)
	})
}

// enrol replaces what verifies an account's logins; nil ends its enrolment, and what is
// empty waits for the next login with the password.
func (lo *Logins) enrol(account string, e Enrolments) error {
	lo.remembering.Lock()
	defer lo.remembering.Unlock()
	return lo.saveEnrolments(account, e)
}

func (lo *Logins) saveEnrolments(account string, e Enrolments) error {
	defer lo.Offers.Forget()
	if len(e) == 0 { // what it says of the password is kept
		old, err := lo.Enrolled(account)
		if err == nil {
			err = lo.retired(account, old)
		}
		if err != nil {
			return err
		}
	}
	if e == nil {
		path := lo.loginPath(account, keysFile)
		return errors.Join(removed(path), removed(path+sealedExt))
	}
	b, err := yaml.Marshal(e)
	if err != nil {
		return err
	}
	return lo.saveSealed(account, keysFile, b)
}

// removed removes a file, if it is there.
func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SealLogin has what verifies an account's logins kept as the vault says now: encrypted, or
// in clear.
func (lo *Logins) SealLogin(account string) error {
	lo.remembering.Lock()
	defer lo.remembering.Unlock()
	for _, name := range []string{keysFile, verifierFile} {
		_, b, err := lo.readLogin(account, name)
		if err == nil && b != nil {
			err = lo.saveSealed(account, name, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// InStep has one enrolment of an enrolled account follow its password: after a login
// with the password itself, which the server has confirmed. What it would be now costs as
// much as the login did, and is asked for where there is one.
func (lo *Logins) InStep(account string, now func() *Enrolment) {
	lo.remembering.Lock()
	defer lo.remembering.Unlock()
	all, err := lo.Enrolled(account)
	if err != nil || all == nil {
		return
	}
	fresh := now()
	if fresh == nil {
		return
	}
	old := all.of(fresh.Mechanism)
	switch {
	case old == nil:
		all = append(all, *fresh)
	case bytes.Equal(old.StoredKey, fresh.StoredKey) && bytes.Equal(old.Salt, fresh.Salt) && old.Iterations == fresh.Iterations:
		if old.Own != nil {
			return
		}
		*old = *fresh
	default: // another password, of which the other mechanisms' keys know nothing
		all = Enrolments{*fresh}
	}
	if err := lo.saveEnrolments(account, all); err != nil {
		lo.log.Warn("an account's enrolment could not follow its password", "account", lo.log.Name(account))
		return
	}
	lo.log.Info("an account's enrolment follows its password", "account", lo.log.Name(account), "mechanism", fresh.Mechanism)
}

// Stale has an enrolment wait for the next login with the password: the server has other
// keys.
func (lo *Logins) Stale(account string) {
	if err := lo.enrol(account, Enrolments{}); err != nil {
		lo.log.Warn("what an account was enrolled with could not be removed", "account", lo.log.Name(account))
	}
	lo.log.Warn("an account has to be enrolled anew: the server has other keys of it than before", "account", lo.log.Name(account))
}

// Without ends an account's enrolment for one mechanism, which the server has no more.
func (lo *Logins) Without(account, mechanism string) {
	lo.remembering.Lock()
	defer lo.remembering.Unlock()
	all, err := lo.Enrolled(account)
	if err == nil {
		err = lo.saveEnrolments(account, slices.DeleteFunc(all, func(e Enrolment) bool { return e.Mechanism == mechanism }))
	}
	if err != nil {
		lo.log.Warn("what an account was enrolled with could not be removed", "account", lo.log.Name(account))
	}
}

// Admitted remembers how an account has logged in, or that its server wanted less than
// before.
func (lo *Logins) Admitted(account, how string, weaker *causes.Failure) {
	lo.mu.Lock()
	_, told := lo.weaker[account]
	if delete(lo.weaker, account); weaker != nil {
		lo.weaker[account] = weaker
	}
	lo.mu.Unlock()
	switch {
	case weaker == nil:
		if err := lo.loggedIn(account, how); err != nil {
			lo.log.Warn("how strong a login was could not be remembered", "account", lo.log.Name(account))
		}
	case !told:
		lo.Bell.Happened(notify.EventServerRefused, account, address.DomainOf(account))
	}
	if told || weaker != nil {
		lo.Bell.Changed()
	}
}

// FallenBehind are the logins that a server wants to be weaker than before, by account.
func (lo *Logins) FallenBehind() map[string]*causes.Failure {
	lo.mu.Lock()
	defer lo.mu.Unlock()
	return maps.Clone(lo.weaker)
}

// FellBehind says what to do about a server that wants less than before, and remembers it.
func (lo *Logins) FellBehind(account string, f *causes.Failure) {
	f.Text += " Ask the people who run the server; only if they changed it: otrproxy login forget " + account
	lo.Admitted(account, "", f)
}

// Provers are the mechanisms that a client may be offered besides PLAIN: those with
// which its account is enrolled. From is the account where the client's stream says so;
// where not, it may be any account of the domain, and all of them have to be enrolled. A
// client that is offered what its account has not got would fail at it.
func (lo *Logins) Provers(domain, from, host string) (out []string) {
	lo.mu.Lock()
	now := time.Now()
	plain, plainFrom := now.Before(lo.plainly[plainly{host, ""}]), now.Before(lo.plainly[plainly{host, from}])
	lo.mu.Unlock()
	switch {
	case from != "" && plainFrom:
		return nil
	case from != "":
		return lo.haveAll([]string{from})
	case plain:
		return nil
	}
	names, ok, asOf := lo.Offers.known(domain)
	if ok {
		return names
	}
	if accounts := lo.Accounts.At(lo.dir, domain); len(accounts) > 0 {
		out = lo.haveAll(accounts)
	}
	lo.Offers.note(domain, out, asOf)
	return out
}

// haveAll are the mechanisms that all of the accounts are enrolled with.
func (lo *Logins) haveAll(accounts []string) (out []string) {
	for _, m := range mechanisms {
		if !slices.ContainsFunc(accounts, func(a string) bool {
			e, err := lo.Enrolled(a)
			return err != nil || e.Proves(m.Name) == nil
		}) {
			out = append(out, m.Name)
		}
	}
	return out
}

const offerLife = time.Minute

// plainLife is for how long a host is offered PLAIN alone after a client there tried SCRAM and
// could not get in by it: the client will try again. Its account is not enrolled, or has
// another password than it was enrolled with; in that case whoever says that the stream is
// that account's gets PLAIN, too.
const plainLife = 2 * time.Minute
