package sasl

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/argon2"
	"golang.org/x/text/secure/precis"
)

// KeepsFirst keeps what recognises a password, where nothing does yet.
func (lo *Logins) KeepsFirst(account, password string) {
	if v, err := lo.verifierOf(account); err != nil || v != nil && v.Password != "" {
		return
	}
	hash := sync.OnceValue(func() string { return hashPassword(password) })
	if !lo.Spawn(func() { hash() }) { // it takes a while
		return
	}
	sum := lo.Passwords.Sum(account, password)
	lo.OnceMade(account, func() {
		v := verifier{Password: hash()}
		lo.remembering.Lock()
		defer lo.remembering.Unlock()
		if right, ok := lo.Passwords.Of(account); ok && right != sum { // another one has been confirmed since
			return
		}
		if err := lo.saveVerifier(account, v); err != nil {
			lo.log.Warn("what recognises a password could not be kept", "account", lo.log.Name(account))
		}
	})
}

// A server that accepts another password for an account lets somebody in who is not its
// person. So a little is known here of each account's password, from the first good login
// on: enough to recognise it, and not to find it. Who logs in with another one is a stranger
// (strangers.go), whatever the server says.
//
// On disk it is login.verifier in the account's directory (login.verifier.age where there is
// a passphrase); of an account that is enrolled, its SCRAM keys say the same (enrol.go). In
// memory it is a keyed hash, under a key of this run's, so that it costs microseconds.

const verifierFile = "login.verifier"

// A verifier is login.verifier.
type verifier struct {
	Password string     `yaml:"password,omitempty"` // its argon2id, in the PHC string format
	Vouched  bool       `yaml:"vouched,omitempty"`  // the administrator has said that it is the person's; else only the server has, at the first login
	Keys     Enrolments `yaml:"keys,omitempty"`     // of an enrolment that has ended; counts while Password is empty
}

// An Argon2Cost is what guessing a password costs whoever has the file.
type Argon2Cost struct {
	Time, Memory uint32 // passes, and KiB
	Threads      uint8
}

// PasswordCost is OWASP's advice for argon2id (Password Storage Cheat Sheet). Tests lower it.
var PasswordCost = Argon2Cost{Time: 2, Memory: 19 << 10, Threads: 1}

// hashing bounds the memory that hashing takes: one password at a time.
var hashing sync.Mutex

func (c Argon2Cost) sum(password, salt []byte) []byte {
	hashing.Lock()
	defer hashing.Unlock()
	return argon2.IDKey(password, salt, c.Time, c.Memory, c.Threads, 32)
}

// hashPassword is a password's argon2id (RFC 9106) in the PHC string format.
func hashPassword(password string) string {
	var salt [16]byte
	rand.Read(salt[:])
	c, b64 := PasswordCost, base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.Memory, c.Time, c.Threads, b64.EncodeToString(salt[:]), b64.EncodeToString(c.sum(comparableForm(password), salt[:])))
}

// comparableForm is a password as RFC 8265 section 4.2 compares it, so that a client that writes it in
// another form of Unicode is recognised; as it is where that has no form for it.
func comparableForm(password string) []byte {
	if s, err := precis.OpaqueString.String(password); err == nil {
		password = s
	}
	return []byte(password)
}

var errHash = errors.New("not an argon2id hash")

// readHash takes a PHC string apart. The bounds keep a damaged file from taking all memory.
func readHash(s string) (c Argon2Cost, salt, sum []byte, err error) {
	var version int
	var rest string
	if n, _ := fmt.Sscanf(s, "$argon2id$v=%d$m=%d,t=%d,p=%d$%s", &version, &c.Memory, &c.Time, &c.Threads, &rest); n != 5 || version != argon2.Version {
		return c, nil, nil, errHash
	}
	at := bytes.IndexByte([]byte(rest), '$')
	if at < 0 || c.Memory < 8 || c.Memory > 1<<18 || c.Time < 1 || c.Time > 16 || c.Threads < 1 {
		return c, nil, nil, errHash
	}
	salt, err = base64.RawStdEncoding.DecodeString(rest[:at])
	sum, err2 := base64.RawStdEncoding.DecodeString(rest[at+1:])
	if err != nil || err2 != nil || len(salt) < 8 || len(sum) != 32 {
		return c, nil, nil, errHash
	}
	return c, salt, sum, nil
}

// fits reports whether a password is the one that a verifier was made of.
func (v *verifier) fits(creds Credentials) bool {
	if v.Password == "" {
		return v.Keys.fit(creds)
	}
	c, salt, sum, err := readHash(v.Password)
	return err == nil && subtle.ConstantTimeCompare(c.sum(comparableForm(creds.Password), salt), sum) == 1
}

// verifierOf reads an account's verifier; nil where nothing is known of its password.
func (lo *Logins) verifierOf(account string) (*verifier, error) {
	path, b, err := lo.readLogin(account, verifierFile)
	if err != nil || b == nil {
		return nil, err
	}
	v := &verifier{}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	err = dec.Decode(v)
	if err == nil && v.Password != "" {
		_, _, _, err = readHash(v.Password)
	}
	if err != nil || v.Password == "" && !v.Keys.sound() {
		return nil, fmt.Errorf("%s is damaged; restore it from a backup, or remove it: then whoever logs in next is taken for the account's person", path)
	}
	return v, nil
}

// saveVerifier puts a verifier in force. Whom the administrator has vouched for stays that. The
// caller holds remembering.
func (lo *Logins) saveVerifier(account string, v verifier) error {
	old, err := lo.verifierOf(account)
	if err != nil {
		return err
	}
	v.Vouched = v.Vouched || old != nil && old.Vouched
	b, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	return lo.saveSealed(account, verifierFile, b)
}

// retired keeps an enrolment's keys as what is known of the password, where nothing better
// is. The caller holds remembering.
func (lo *Logins) retired(account string, e Enrolments) error {
	v, err := lo.verifierOf(account)
	if err != nil || v != nil && v.Password != "" || len(e) == 0 {
		return err
	}
	return lo.saveVerifier(account, verifier{Keys: e})
}

// Vouch notes that the administrator knows whose an account is.
func (lo *Logins) Vouch(account string) error {
	lo.remembering.Lock()
	defer lo.remembering.Unlock()
	v, err := lo.verifierOf(account)
	if err == nil && v == nil { // enrolled by an earlier version
		var e Enrolments
		if e, err = lo.Enrolled(account); len(e) > 0 {
			v = &verifier{Keys: e}
		}
	}
	switch {
	case err != nil:
		return err
	case v == nil:
		return fmt.Errorf("%s has not logged in here yet, so there is nothing to confirm", account)
	}
	v.Vouched = true
	return lo.saveVerifier(account, *v)
}

// VouchedFor reports whether the administrator has said so.
func (lo *Logins) VouchedFor(account string) bool {
	v, err := lo.verifierOf(account)
	return err == nil && v != nil && v.Vouched
}

// A Standing is what a login with a password is worth here.
type Standing uint8

// What a login may be worth.
const (
	Strange Standing = iota // it is not the password known here
	Known                   // it is
	First                   // none was known yet, and it is from now on
)

// Passwords are what this run remembers of them.
type Passwords struct {
	key [32]byte // random for each run

	mu        sync.Mutex
	right     map[string][32]byte    // by account: of the password of its person
	refused   map[[32]byte]time.Time // until when somebody's person does not want them to get in
	strangers map[string][]*Stranger
	epochs    map[string]int // how often the administrator has said whose an account is
}

func newPasswords() *Passwords {
	w := &Passwords{right: map[string][32]byte{}, refused: map[[32]byte]time.Time{}, strangers: map[string][]*Stranger{}, epochs: map[string]int{}}
	rand.Read(w.key[:])
	return w
}

// Sum is an account's password as this run remembers it.
func (w *Passwords) Sum(account, password string) (sum [32]byte) {
	m := hmac.New(sha256.New, w.key[:])
	m.Write([]byte(account + "\x00"))
	m.Write(comparableForm(password))
	m.Sum(sum[:0])
	return sum
}

// Of is the password of an account's person, as this run remembers it.
func (w *Passwords) Of(account string) (sum [32]byte, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum, ok = w.right[account]
	return sum, ok
}

// Recognise says what a password is worth that the server has accepted. A first one is the
// account's from then on.
func (lo *Logins) Recognise(account string, c Credentials) (Standing, error) {
	sum := lo.Passwords.Sum(account, c.Password)
	fits, there, err := lo.Satisfies(account, c)
	if err != nil {
		return Strange, err
	}
	lo.Passwords.mu.Lock()
	defer lo.Passwords.mu.Unlock()
	if right, ok := lo.Passwords.right[account]; ok && right != sum { // of two first ones at once, one decides
		return Strange, nil
	}
	switch {
	case there && !fits:
		return Strange, nil
	case there:
		lo.Passwords.right[account] = sum
		return Known, nil
	}
	lo.Passwords.right[account] = sum
	return First, nil
}

// Satisfies reports whether a password is the one known here, and whether one is.
func (lo *Logins) Satisfies(account string, c Credentials) (fits, there bool, err error) {
	if right, ok := lo.Passwords.Of(account); ok {
		return right == lo.Passwords.Sum(account, c.Password), true, nil
	}
	e, err := lo.Enrolled(account)
	if err != nil {
		return false, false, err
	}
	if len(e) > 0 {
		return e.fit(c), true, nil
	}
	v, err := lo.verifierOf(account)
	if err != nil || v == nil {
		return false, false, err
	}
	return v.fits(c), true, nil
}

// KeepPassword makes a password the account's, in memory and on disk.
func (lo *Logins) KeepPassword(account, password string) error {
	v := verifier{Password: hashPassword(password)}
	lo.remembering.Lock()
	defer lo.remembering.Unlock()
	if err := lo.saveVerifier(account, v); err != nil {
		return err
	}
	lo.Passwords.Learn(account, lo.Passwords.Sum(account, password))
	return nil
}

// Counted is how many accounts' passwords are known.
func (w *Passwords) Counted() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.right)
}

// Forget drops what is remembered of an account that has come to no use.
func (w *Passwords) Forget(account string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.right, account)
	delete(w.strangers, account)
}

// Epoch is how often the administrator has said whose an account is.
func (w *Passwords) Epoch(account string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.epochs[account]
}

// NextEpoch begins a new one.
func (w *Passwords) NextEpoch(account string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epochs[account]++
}

// Learn notes which password is the account's.
func (w *Passwords) Learn(account string, sum [32]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.right[account] = sum
	delete(w.refused, sum)
}
