package proxy

import (
	"bytes"
	"crypto/hmac"
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
	"github.com/xdg-go/scram"
	"go.yaml.in/yaml/v3"

	"otrproxy/otrlayer"
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

// readLogin reads a file that may be encrypted; nil where there is none.
func (p *Proxy) readLogin(account, name string) (path string, b []byte, err error) {
	path = p.loginPath(account, name)
	b, err = readPrivate(path + sealedExt)
	if err == nil && b != nil {
		path += sealedExt
		b, err = p.vault.Open(b)
	} else if err == nil {
		b, err = readPrivate(path)
	}
	return path, b, err
}

// saveSealed saves a file encrypted where there is a passphrase, and nowhere in clear then.
func (p *Proxy) saveSealed(account, name string, b []byte) error {
	path := p.loginPath(account, name)
	if !p.vault.Sealing() {
		return errors.Join(p.saveLogin(account, name, b), removed(path+sealedExt))
	}
	b, err := p.vault.Seal(b)
	if err != nil {
		return err
	}
	return errors.Join(p.saveLogin(account, name+sealedExt, b), removed(path))
}

func (p *Proxy) saveLogin(account, name string, b []byte) error {
	dir := otrlayer.Dir(p.state.Dir, account)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return atomicwriter.WriteFile(filepath.Join(dir, name), b, 0o600)
}

// An enrolment is what verifies one SCRAM login and continues it to the server: what the
// server itself keeps of a password (RFC 5802 section 3), and beside it our own (ownkeys.go).
// One without, of an earlier version, waits for the next login with the password.
type enrolment struct {
	Mechanism  string `yaml:"mechanism"`
	Salt       []byte `yaml:"salt"`
	Iterations int    `yaml:"iterations"`
	StoredKey  []byte `yaml:"stored_key"`
	ServerKey  []byte `yaml:"server_key"`

	Own *ownKeys `yaml:"own,omitempty"`
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

// proves is the one by which a client can prove its password; nil for none.
func (e enrolments) proves(mechanism string) *enrolment {
	if k := e.of(mechanism); k != nil && k.Own != nil {
		return k
	}
	return nil
}

// enrolled reads them; none for an account that is not enrolled.
func (p *Proxy) enrolled(account string) (enrolments, error) {
	path, b, err := p.readLogin(account, keysFile)
	if err != nil || b == nil {
		return nil, err
	}
	var out enrolments
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
func (e enrolments) sound() bool {
	return len(e) > 0 && !slices.ContainsFunc(e, func(k enrolment) bool {
		m := mechanismOf(k.Mechanism)
		return m == nil || k.Iterations < 1 || k.Iterations > maxIterations || len(k.StoredKey) != m.new().Size() || len(k.ServerKey) != m.new().Size() || k.Own != nil && !k.Own.sound(m)
	})
}

// fit reports whether a password is the one that the keys were made of.
func (e enrolments) fit(c credentials) bool {
	return slices.ContainsFunc(e, func(k enrolment) bool {
		m := mechanismOf(k.Mechanism)
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
func (p *Proxy) enrol(account string, e enrolments) error {
	p.remembering.Lock()
	defer p.remembering.Unlock()
	return p.saveEnrolments(account, e)
}

func (p *Proxy) saveEnrolments(account string, e enrolments) error {
	defer p.offers.forget()
	if len(e) == 0 { // what it says of the password is kept
		old, err := p.enrolled(account)
		if err == nil {
			err = p.retired(account, old)
		}
		if err != nil {
			return err
		}
	}
	if e == nil {
		path := p.loginPath(account, keysFile)
		return errors.Join(removed(path), removed(path+sealedExt))
	}
	b, err := yaml.Marshal(e)
	if err != nil {
		return err
	}
	return p.saveSealed(account, keysFile, b)
}

// removed removes a file, if it is there.
func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sealLogin has what verifies an account's logins kept as the vault says now: encrypted, or
// in clear.
func (p *Proxy) sealLogin(account string) error {
	p.remembering.Lock()
	defer p.remembering.Unlock()
	for _, name := range []string{keysFile, verifierFile} {
		_, b, err := p.readLogin(account, name)
		if err == nil && b != nil {
			err = p.saveSealed(account, name, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
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
		if old.Own != nil {
			return
		}
		*old = *fresh
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
	now := time.Now()
	plain, plainFrom := now.Before(p.plainly[plainly{host, ""}]), now.Before(p.plainly[plainly{host, from}])
	p.mu.Unlock()
	switch {
	case from != "" && plainFrom:
		return nil
	case from != "":
		return p.haveAll([]string{from})
	case plain:
		return nil
	}
	names, ok, asOf := p.offers.known(domain)
	if ok {
		return names
	}
	if accounts := p.kin.at(p.state.Dir, domain); len(accounts) > 0 {
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
			return err != nil || e.proves(m.name) == nil
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

// plainLife is for how long a host is offered PLAIN alone after a client there tried SCRAM and
// could not get in by it: the client will try again. Its account is not enrolled, or has
// another password than it was enrolled with; in that case whoever says that the stream is
// that account's gets PLAIN, too.
const plainLife = 2 * time.Minute

// A plainly is who gets PLAIN alone: a host, and an account where the client says which.
type plainly struct{ host, account string }

// offerPlain offers a host PLAIN alone. Account is one whose keys are of no use; "" where
// there are none.
func (p *Proxy) offerPlain(host, account string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.plainly) > 1000 {
		clear(p.plainly)
	}
	until := time.Now().Add(plainLife)
	p.plainly[plainly{host, ""}], p.plainly[plainly{host, account}] = until, until
}
