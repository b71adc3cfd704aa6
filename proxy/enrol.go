package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/sys/atomicwriter"
	"go.yaml.in/yaml/v3"

	"otrproxy/otrlayer"
)

// What is remembered of an account's logins, in its directory: how strong they were
// (login.yaml), and for an enrolled account what verifies a SCRAM login (login.keys, or
// login.keys.age where there is a passphrase). There is no password in either.

const (
	loginFile = "login.yaml"
	keysFile  = "login.keys"
	sealedExt = ".age"
)

// A strength is what a login to a server was worth: whether the password stayed here, and
// whether the login was bound to its very connection. A server that has offered the one
// does not fall behind it unless somebody is in between.
type strength uint8

const (
	byPassword strength = iota // PLAIN: the server is handed the password
	byProof                    // SCRAM
	byBinding                  // SCRAM with channel binding
)

var strengths = []string{"plain", "scram", "bound"}

// strengthOf is that of a mechanism.
func strengthOf(mechanism string) strength {
	switch {
	case strings.Contains(mechanism, "-PLUS"):
		return byBinding
	case strings.HasPrefix(mechanism, "SCRAM-"):
		return byProof
	}
	return byPassword
}

// A loginMemory is login.yaml.
type loginMemory struct {
	Strength  string    `yaml:"strength"`
	Mechanism string    `yaml:"mechanism"` // of the strongest login so far
	Since     time.Time `yaml:"since"`
}

// loginsOf is what is remembered of an account's logins; nil for nothing.
func (p *Proxy) loginsOf(account string) (*loginMemory, error) {
	path := p.loginPath(account, loginFile)
	b, err := readPrivate(path)
	if err != nil || b == nil {
		return nil, err
	}
	m := &loginMemory{}
	if err := yaml.Unmarshal(b, m); err != nil || !slices.Contains(strengths, m.Strength) {
		return nil, fmt.Errorf("%s is damaged; restore it from a backup, or remove it to begin anew", path)
	}
	return m, nil
}

// least is how strong an account's next login has to be.
func (p *Proxy) least(account string) (strength, *loginMemory, error) {
	m, err := p.loginsOf(account)
	if err != nil || m == nil {
		return byPassword, m, err
	}
	return strength(slices.Index(strengths, m.Strength)), m, nil
}

// loggedIn remembers a login.
func (p *Proxy) loggedIn(account, mechanism string) error {
	p.remembering.Lock()
	defer p.remembering.Unlock()
	s := strengthOf(mechanism)
	if before, m, err := p.least(account); err != nil || m != nil && before >= s {
		return err
	}
	b, err := yaml.Marshal(loginMemory{strengths[s], mechanism, time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	return p.saveLogin(account, loginFile, b)
}

func (p *Proxy) loginPath(account, name string) string {
	return filepath.Join(otrlayer.Dir(p.state.Dir, account), name)
}

func (p *Proxy) saveLogin(account, name string, b []byte) error {
	dir := otrlayer.Dir(p.state.Dir, account)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return atomicwriter.WriteFile(filepath.Join(dir, name), b, 0o600)
}

// An enrolment is what verifies one SCRAM login and continues it to the server (RFC 5802
// section 3): what the server itself keeps of a password.
type enrolment struct {
	Mechanism  string `yaml:"mechanism"`
	Salt       []byte `yaml:"salt"`
	Iterations int    `yaml:"iterations"`
	StoredKey  []byte `yaml:"stored_key"`
	ServerKey  []byte `yaml:"server_key"`
}

// enrolments are those of an account, by mechanism.
type enrolments []enrolment

func (e enrolments) of(mechanism string) *enrolment {
	i := slices.IndexFunc(e, func(x enrolment) bool { return x.Mechanism == strings.TrimSuffix(mechanism, "-PLUS") })
	if i < 0 {
		return nil
	}
	return &e[i]
}

// enrolled reads them; none for an account that is not enrolled.
func (p *Proxy) enrolled(account string) (enrolments, error) {
	path := p.loginPath(account, keysFile)
	b, err := readPrivate(path + sealedExt)
	if err == nil && b != nil {
		path += sealedExt
		b, err = p.vault.Open(b)
	} else if err == nil {
		b, err = readPrivate(path)
	}
	if err != nil || b == nil {
		return nil, err
	}
	var out enrolments
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&out); err != nil {
		return nil, fmt.Errorf("%s is damaged; restore it from a backup, or remove it and enrol the account anew", path)
	}
	for _, e := range out {
		m := mechanismOf(e.Mechanism)
		if m == nil || e.Iterations < 1 || e.Iterations > maxIterations || len(e.StoredKey) != m.new().Size() || len(e.ServerKey) != m.new().Size() {
			return nil, fmt.Errorf("%s is damaged; restore it from a backup, or remove it and enrol the account anew", path)
		}
	}
	return out, nil
}

// enrol replaces what verifies an account's logins; nil ends its enrolment, and what is
// empty waits for the next login with the password.
func (p *Proxy) enrol(account string, e enrolments) error {
	p.remembering.Lock()
	defer p.remembering.Unlock()
	return p.saveEnrolments(account, e)
}

func (p *Proxy) saveEnrolments(account string, e enrolments) error {
	defer p.offers.forget()
	path := p.loginPath(account, keysFile)
	if e == nil {
		return errors.Join(removed(path), removed(path+sealedExt))
	}
	b, err := yaml.Marshal(e)
	if err != nil {
		return err
	}
	if !p.vault.Sealing() {
		return errors.Join(p.saveLogin(account, keysFile, b), removed(path+sealedExt))
	}
	if b, err = p.vault.Seal(b); err != nil {
		return err
	}
	return errors.Join(p.saveLogin(account, keysFile+sealedExt, b), removed(path))
}

// removed removes a file, if it is there.
func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sealLogin has an account's enrolment kept as the vault says now: encrypted, or in clear.
func (p *Proxy) sealLogin(account string) error {
	p.remembering.Lock()
	defer p.remembering.Unlock()
	e, err := p.enrolled(account)
	if err != nil || e == nil {
		return err
	}
	return p.saveEnrolments(account, e)
}

// inStep has one enrolment of an enrolled account follow its password: after a login
// with the password itself, which the server has confirmed. What it would be now costs as
// much as the login did, and is asked for where there is one.
func (p *Proxy) inStep(account string, now func() *enrolment) {
	p.remembering.Lock()
	defer p.remembering.Unlock()
	all, err := p.enrolled(account)
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
		return
	default: // another password, of which the other mechanisms' keys know nothing
		all = enrolments{*fresh}
	}
	if err := p.saveEnrolments(account, all); err != nil {
		p.log.Warn("an account's enrolment could not follow its password", "account", p.name(account))
		return
	}
	p.log.Info("an account's enrolment follows its password", "account", p.name(account), "mechanism", fresh.Mechanism)
}

// stale has an enrolment wait for the next login with the password: the server has other
// keys.
func (p *Proxy) stale(account string) {
	if err := p.enrol(account, enrolments{}); err != nil {
		p.log.Warn("what an account was enrolled with could not be removed", "account", p.name(account))
	}
	p.log.Warn("an account has to be enrolled anew: the server has other keys of it than before", "account", p.name(account))
}

// without ends an account's enrolment for one mechanism, which the server has no more.
func (p *Proxy) without(account, mechanism string) {
	p.remembering.Lock()
	defer p.remembering.Unlock()
	all, err := p.enrolled(account)
	if err == nil {
		err = p.saveEnrolments(account, slices.DeleteFunc(all, func(e enrolment) bool { return e.Mechanism == mechanism }))
	}
	if err != nil {
		p.log.Warn("what an account was enrolled with could not be removed", "account", p.name(account))
	}
}

// admitted remembers how an account has logged in, or that its server wanted less than
// before.
func (p *Proxy) admitted(account, how string, weaker *Failure) {
	p.mu.Lock()
	_, told := p.weaker[account]
	if delete(p.weaker, account); weaker != nil {
		p.weaker[account] = weaker
	}
	p.mu.Unlock()
	switch {
	case weaker == nil:
		if err := p.loggedIn(account, how); err != nil {
			p.log.Warn("how strong a login was could not be remembered", "account", p.name(account))
		}
	case !told:
		p.happened(EventServerRefused, account, bareDomain(account))
	}
	if told || weaker != nil {
		p.changed()
	}
}

// fellBehind says what to do about a server that wants less than before, and remembers it.
func (p *Proxy) fellBehind(account string, f *Failure) {
	f.Text += " Ask the people who run the server; only if they changed it: otrproxy login forget " + account
	p.admitted(account, "", f)
}

// provers are the mechanisms that a client may be offered besides PLAIN: those with
// which its account is enrolled. From is the account where the client's stream says so;
// where not, it may be any account of the domain, and all of them have to be enrolled. A
// client that is offered what its account has not got would fail at it.
func (p *Proxy) provers(domain, from, host string) (out []string) {
	p.mu.Lock()
	until, plain := p.plainly[host]
	plain = plain && time.Now().Before(until)
	p.mu.Unlock()
	switch {
	case from != "":
		return p.haveAll([]string{from})
	case plain:
		return nil
	}
	names, ok, asOf := p.offers.known(domain)
	if ok {
		return names
	}
	accounts := slices.DeleteFunc(otrlayer.Accounts(p.state.Dir), func(a string) bool { return bareDomain(a) != domain })
	if len(accounts) > 0 {
		out = p.haveAll(accounts)
	}
	p.offers.note(domain, out, asOf)
	return out
}

// haveAll are the mechanisms that all of the accounts are enrolled with.
func (p *Proxy) haveAll(accounts []string) (out []string) {
	for _, m := range mechanisms {
		if !slices.ContainsFunc(accounts, func(a string) bool {
			e, err := p.enrolled(a)
			return err != nil || e.of(m.name) == nil
		}) {
			out = append(out, m.name)
		}
	}
	return out
}

// offers are what clients are offered that do not say whose they are, by domain: with many
// accounts it takes a while to find. It is found anew when an enrolment or an account
// changes, and after offerLife for what somebody has changed in the files.
type offers struct {
	mu      sync.Mutex
	of      map[string]offer
	changes int
}

type offer struct {
	names []string
	until time.Time
}

const offerLife = time.Minute

// known is what was found for a domain, as of how many changes.
func (o *offers) known(domain string) (names []string, ok bool, asOf int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k, ok := o.of[domain]
	return k.names, ok && time.Now().Before(k.until), o.changes
}

// note keeps what was found, unless something has changed meanwhile.
func (o *offers) note(domain string, names []string, asOf int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if asOf != o.changes {
		return
	}
	if o.of == nil || len(o.of) > 1000 { // names come from clients
		o.of = map[string]offer{}
	}
	o.of[domain] = offer{names, time.Now().Add(offerLife)}
}

func (o *offers) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changes++
	clear(o.of)
}

// plainLife is for how long a host is offered PLAIN alone from which somebody came with
// SCRAM whose account is not enrolled: the same client, which will try again. Who says whose
// the stream is is offered what that account has.
const plainLife = 2 * time.Minute

// Wrong passwords are tried here: of enrolled accounts without the server noticing, of others
// in the name of everybody who comes from here. So they are bounded here: from the fifth on
// each costs twice the wait of the one before.
const (
	freeTries   = 4
	longestWait = time.Minute
)

// wrong counts an account's wrong proofs, from one host: who guesses elsewhere does not
// keep the account's own people out.
type wrong struct {
	tries int
	until time.Time // nothing is tried before
}

// mayTry reports whether a proof of an account is looked at now.
func (p *Proxy) mayTry(account, host string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !time.Now().Before(p.wrongs[[2]string{account, host}].until)
}

// tooManyTries is told to who must wait.
const tooManyTries = "Too many wrong passwords were tried here; wait a minute."

// tried counts a proof or password.
func (p *Proxy) tried(account, host string, right bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := [2]string{account, host}
	if right {
		delete(p.wrongs, key)
		return
	}
	if len(p.wrongs) > 1000 { // a network of hosts
		clear(p.wrongs)
	}
	w := p.wrongs[key]
	if w.tries++; w.tries > freeTries {
		w.until = time.Now().Add(min(time.Second<<min(w.tries-freeTries-1, 10), longestWait))
	}
	p.wrongs[key] = w
}

func (p *Proxy) offerPlain(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.plainly) > 1000 {
		clear(p.plainly)
	}
	p.plainly[host] = time.Now().Add(plainLife)
}
