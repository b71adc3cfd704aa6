package keyring

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"otrproxy/otrlayer/otr"
)

// A Maker makes the keys of all accounts, one after the other in the order in which they were
// asked for: each takes a processor for about a second. Once nobody has asked for a while it
// makes some to spare, for accounts that come. It is safe for use by several goroutines.
type Maker struct {
	spares spares
	Random io.Reader
	log    func(level int, what string, err error)
	// Rested is called when the maker has made spare keys and nobody waits for one: the memory
	// that this took is garbage then. Set it before the first key is asked for; nil is allowed.
	Rested func()

	mu     sync.Mutex
	orders []*order
	busy   bool          // its goroutine runs
	idle   chan struct{} // closed when that ends
	spare  bool          // keys to spare are wanted
	full   bool          // there are as many as there may be
	quiet  *time.Timer   // until some are made
	closed bool
}

// An order is a key that somebody waits for.
type order struct {
	gone func() bool // nobody waits any more
	key  *otr.PrivateKey
	err  error
	done chan struct{}
}

const (
	maxSpare = 3
	// spareAfter is how long nobody has asked for a key before one is made to spare.
	spareAfter = time.Minute
)

var errClosing = errors.New("no key is made any more")

// NewMaker is a maker that keeps keys to spare in the state directory, encrypted where the
// vault says so; in none for "". A nil log is none.
func NewMaker(state string, vault Vault, log func(level int, what string, err error)) *Maker {
	if log == nil {
		log = func(int, string, error) {}
	}
	return &Maker{spares: spares{dir: state, vault: vault}, Random: rand.Reader, log: log}
}

// Key is a new key, which nobody else gets. It waits for those that were asked for before.
func (m *Maker) Key(gone func() bool) (*otr.PrivateKey, error) {
	o := &order{gone: gone, done: make(chan struct{})}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil, errClosing
	}
	m.orders = append(m.orders, o)
	m.begin()
	m.mu.Unlock()
	<-o.done
	return o.key, o.err
}

// begin sees to it that somebody works. The caller holds mu.
func (m *Maker) begin() {
	if m.quiet != nil {
		m.quiet.Stop()
		m.quiet = nil
	}
	if !m.busy {
		m.busy, m.idle = true, make(chan struct{})
		go m.work()
	}
}

// Stock has keys made to spare, as soon as nobody has asked for one for a while.
func (m *Maker) Stock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spare = m.spares.dir != "" && !m.full
	m.rest()
}

// rest plans the next key to spare, where nobody works. The caller holds mu.
func (m *Maker) rest() {
	if m.spare && !m.busy && !m.closed && m.quiet == nil {
		m.quiet = time.AfterFunc(spareAfter, m.restock)
	}
}

func (m *Maker) restock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.busy {
		return
	}
	m.begin()
}

// work serves who waits, and makes keys to spare where nobody does.
func (m *Maker) work() {
	served, laid := false, false
	for {
		m.mu.Lock()
		if o := m.first(); o != nil {
			m.mu.Unlock()
			o.key, o.err = m.make(o)
			close(o.done)
			served = true
			continue
		}
		if m.closed || !m.spare || served {
			m.busy = false
			close(m.idle)
			m.rest()
			m.mu.Unlock()
			if laid && m.Rested != nil {
				m.Rested()
			}
			return
		}
		m.mu.Unlock()
		full, err := m.lay()
		laid = true
		m.mu.Lock()
		m.full, m.spare = full, !full && err == nil // else until the next account needs a key
		m.mu.Unlock()
	}
}

// first takes the first order off the queue; nil where there is none. The caller holds mu.
func (m *Maker) first() *order {
	if len(m.orders) == 0 {
		return nil
	}
	o := m.orders[0]
	m.orders = m.orders[1:]
	return o
}

// make is the key for an order: one to spare, or a new one.
func (m *Maker) make(o *order) (*otr.PrivateKey, error) {
	m.mu.Lock()
	closed := m.closed
	m.mu.Unlock()
	if closed || o.gone != nil && o.gone() {
		return nil, errClosing
	}
	k, err := m.spares.take()
	if err != nil {
		m.log(4, "the spare keys cannot be used", Cause(err))
	}
	if k != nil {
		m.wanting()
		return k, nil
	}
	return otr.GenerateKey(m.Random)
}

// wanting notes that there are fewer keys to spare than there may be.
func (m *Maker) wanting() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spare, m.full = true, false
}

// lay makes one key to spare, and reports whether there are as many as there may be. Who
// asks for one meanwhile gets that one.
func (m *Maker) lay() (full bool, err error) {
	n, err := m.spares.count()
	if err != nil || n >= maxSpare {
		return err == nil, err
	}
	k, err := otr.GenerateKey(m.Random)
	if err != nil {
		return false, err
	}
	m.mu.Lock()
	o := m.first()
	m.mu.Unlock()
	if o != nil {
		o.key = k
		close(o.done)
		return false, nil
	}
	if err = m.spares.put(k); err != nil && !errors.Is(err, ErrLocked) {
		m.log(4, "a spare key was not saved", Cause(err))
	}
	return false, err
}

// Reseal throws away keys to spare that are not kept as the vault says now: it was given a
// passphrase, or that was removed.
func (m *Maker) Reseal() error {
	m.mu.Lock()
	m.full = false
	m.mu.Unlock()
	m.spares.mu.Lock()
	defer m.spares.mu.Unlock()
	_, other := m.spares.names()
	return remove(m.spares.dir, other)
}

// Close has no key made any more, and waits for the one that is being made.
func (m *Maker) Close() {
	m.mu.Lock()
	m.closed = true
	if m.quiet != nil {
		m.quiet.Stop()
	}
	idle := m.idle
	m.mu.Unlock()
	if idle != nil {
		<-idle
	}
}

// spares are the keys to spare, a file of libotr's form in the state directory. They are no
// account's: they are in no backup, and one leaves the file before anybody uses it, so that
// no two accounts have the same key.
type spares struct {
	dir   string
	vault Vault

	mu sync.Mutex // guards the file
}

// SpareFile is the name of that file; where it is encrypted, the name ends in .age as well.
const SpareFile = "spare.private_keys"

// names are the name that the file has as the vault is now, and the one that it has not.
func (s *spares) names() (name, other string) {
	if s.vault != nil && s.vault.Sealing() {
		return SpareFile + SealedSuffix, SpareFile
	}
	return SpareFile, SpareFile + SealedSuffix
}

// read is what is in the file. What is damaged, what others may have read, and what is in
// clear though there is a passphrase now, is worth nothing and goes. The caller holds mu.
func (s *spares) read() (keys []*otr.PrivateKey, err error) {
	if s.dir == "" {
		return nil, nil
	}
	name, other := s.names()
	if err := remove(s.dir, other); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, name)
	b, err := Read(s.dir, name)
	if err != nil || b == nil {
		return nil, err
	}
	if st, err := os.Lstat(path); err != nil || st.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, remove(s.dir, name)
	}
	if name != SpareFile {
		if b, err = s.vault.Open(b); errors.Is(err, ErrLocked) {
			return nil, err
		}
	}
	list, bad := otr.ParseKeys(b)
	if err != nil || bad != nil {
		return nil, remove(s.dir, name)
	}
	for _, k := range list {
		if k.Key != nil {
			keys = append(keys, k.Key)
		}
	}
	return keys, nil
}

// write puts the file in place, for good. The caller holds mu.
func (s *spares) write(keys []*otr.PrivateKey) (err error) {
	name, _ := s.names()
	if len(keys) == 0 {
		return errors.Join(remove(s.dir, name), syncDir(s.dir))
	}
	var b []byte
	for _, k := range keys {
		if b, err = otr.AppendKey(b, "spare", "none", k); err != nil {
			return err
		}
	}
	if name != SpareFile {
		if b, err = s.vault.Seal(b); err != nil {
			return err
		}
	}
	if err := Write(s.dir, name, b); err != nil {
		return err
	}
	return syncDir(s.dir)
}

// take takes a key out of the file; nil where there is none.
func (s *spares) take() (*otr.PrivateKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, err := s.read()
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	if err := s.write(keys[1:]); err != nil { // it may be there after a crash
		return nil, err
	}
	return keys[0], nil
}

func (s *spares) put(k *otr.PrivateKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, err := s.read()
	if err != nil {
		return err
	}
	return s.write(append(slices.Clip(keys), k))
}

// count is how many there are; an error where none can be kept.
func (s *spares) count() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, err := s.read()
	return len(keys), err
}

func remove(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir has it survive a crash that a file was replaced or removed.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" { // directories cannot be flushed there
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("%s could not be saved: %w", dir, err)
	}
	return nil
}
