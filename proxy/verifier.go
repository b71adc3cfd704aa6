package proxy

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
	Keys     enrolments `yaml:"keys,omitempty"`     // of an enrolment that has ended; counts while Password is empty
}

// An argon2Cost is what guessing a password costs whoever has the file.
type argon2Cost struct {
	time, memory uint32 // passes, and KiB
	threads      uint8
}

// passwordCost is OWASP's advice for argon2id (Password Storage Cheat Sheet). Tests lower it.
var passwordCost = argon2Cost{time: 2, memory: 19 << 10, threads: 1}

// hashing bounds the memory that hashing takes: one password at a time.
var hashing sync.Mutex

func (c argon2Cost) sum(password, salt []byte) []byte {
	hashing.Lock()
	defer hashing.Unlock()
	return argon2.IDKey(password, salt, c.time, c.memory, c.threads, 32)
}

// hashPassword is a password's argon2id (RFC 9106) in the PHC string format.
func hashPassword(password string) string {
	var salt [16]byte
	rand.Read(salt[:])
	c, b64 := passwordCost, base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.memory, c.time, c.threads, b64.EncodeToString(salt[:]), b64.EncodeToString(c.sum(comparableForm(password), salt[:])))
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
func readHash(s string) (c argon2Cost, salt, sum []byte, err error) {
	var version int
	var rest string
	if n, _ := fmt.Sscanf(s, "$argon2id$v=%d$m=%d,t=%d,p=%d$%s", &version, &c.memory, &c.time, &c.threads, &rest); n != 5 || version != argon2.Version {
		return c, nil, nil, errHash
	}
	at := bytes.IndexByte([]byte(rest), '$')
	if at < 0 || c.memory < 8 || c.memory > 1<<18 || c.time < 1 || c.time > 16 || c.threads < 1 {
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
func (v *verifier) fits(creds credentials) bool {
	if v.Password == "" {
		return v.Keys.fit(creds)
	}
	c, salt, sum, err := readHash(v.Password)
	return err == nil && subtle.ConstantTimeCompare(c.sum(comparableForm(creds.password), salt), sum) == 1
}

// verifierOf reads an account's verifier; nil where nothing is known of its password.
func (lo *logins) verifierOf(account string) (*verifier, error) {
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
func (lo *logins) saveVerifier(account string, v verifier) error {
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
func (lo *logins) retired(account string, e enrolments) error {
	v, err := lo.verifierOf(account)
	if err != nil || v != nil && v.Password != "" || len(e) == 0 {
		return err
	}
	return lo.saveVerifier(account, verifier{Keys: e})
}

// vouch notes that the administrator knows whose an account is.
func (lo *logins) vouch(account string) error {
	lo.remembering.Lock()
	defer lo.remembering.Unlock()
	v, err := lo.verifierOf(account)
	if err == nil && v == nil { // enrolled by an earlier version
		var e enrolments
		if e, err = lo.enrolled(account); len(e) > 0 {
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

// vouchedFor reports whether the administrator has said so.
func (lo *logins) vouchedFor(account string) bool {
	v, err := lo.verifierOf(account)
	return err == nil && v != nil && v.Vouched
}

// A standing is what a login with a password is worth here.
type standing uint8

const (
	strange standing = iota // it is not the password known here
	known                   // it is
	first                   // none was known yet, and it is from now on
)

// passwords are what this run remembers of them.
type passwords struct {
	key [32]byte // random for each run

	mu        sync.Mutex
	right     map[string][32]byte    // by account: of the password of its person
	refused   map[[32]byte]time.Time // until when somebody's person does not want them to get in
	strangers map[string][]*stranger
	epochs    map[string]int // how often the administrator has said whose an account is
}

func newPasswords() *passwords {
	w := &passwords{right: map[string][32]byte{}, refused: map[[32]byte]time.Time{}, strangers: map[string][]*stranger{}, epochs: map[string]int{}}
	rand.Read(w.key[:])
	return w
}

// sum is an account's password as this run remembers it.
func (w *passwords) sum(account, password string) (sum [32]byte) {
	m := hmac.New(sha256.New, w.key[:])
	m.Write([]byte(account + "\x00"))
	m.Write(comparableForm(password))
	m.Sum(sum[:0])
	return sum
}

func (w *passwords) of(account string) (sum [32]byte, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum, ok = w.right[account]
	return sum, ok
}

// recognise says what a password is worth that the server has accepted. A first one is the
// account's from then on.
func (lo *logins) recognise(account string, c credentials) (standing, error) {
	sum := lo.passwords.sum(account, c.password)
	fits, there, err := lo.satisfies(account, c)
	if err != nil {
		return strange, err
	}
	lo.passwords.mu.Lock()
	defer lo.passwords.mu.Unlock()
	if right, ok := lo.passwords.right[account]; ok && right != sum { // of two first ones at once, one decides
		return strange, nil
	}
	switch {
	case there && !fits:
		return strange, nil
	case there:
		lo.passwords.right[account] = sum
		return known, nil
	}
	lo.passwords.right[account] = sum
	return first, nil
}

// satisfies reports whether a password is the one known here, and whether one is.
func (lo *logins) satisfies(account string, c credentials) (fits, there bool, err error) {
	if right, ok := lo.passwords.of(account); ok {
		return right == lo.passwords.sum(account, c.password), true, nil
	}
	e, err := lo.enrolled(account)
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

// keepPassword makes a password the account's, in memory and on disk.
func (lo *logins) keepPassword(account, password string) error {
	v := verifier{Password: hashPassword(password)}
	lo.remembering.Lock()
	defer lo.remembering.Unlock()
	if err := lo.saveVerifier(account, v); err != nil {
		return err
	}
	lo.passwords.is(account, lo.passwords.sum(account, password))
	return nil
}

// counted is how many accounts' passwords are known.
func (w *passwords) counted() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.right)
}

// forget drops what is remembered of an account that has come to no use.
func (w *passwords) forget(account string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.right, account)
	delete(w.strangers, account)
}

// epoch is how often the administrator has said whose an account is.
func (w *passwords) epoch(account string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.epochs[account]
}

// begins begins a new one.
func (w *passwords) begins(account string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epochs[account]++
}

// is notes which password is the account's.
func (w *passwords) is(account string, sum [32]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.right[account] = sum
	delete(w.refused, sum)
}
