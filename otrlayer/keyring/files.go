package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Files of lines: otr.fingerprints, otr.versions and private. What is new is appended; a
// file is written anew where a line goes or what stood in it changes, and when too many of
// its lines are out of date. A line that has no end was torn by a crash while it was
// written: it is not read, as libotr does not read it, and goes before the next line comes.
// In private it is read: one contact too many does no harm, and one too few would.
//
// A change is made in memory under the account's lock and queued. One goroutine writes what
// is queued without that lock, as much at once as there is. What a person asks for by a
// command is answered once it is on disk. What happens by itself does not wait, and a crash
// may take the last of it:
//
//   - a new key: it is new at the next private conversation, and announced, as it was now.
//     Nothing was verified that is not on disk, but for a comparison of secrets that has just
//     ended: it is done again.
//   - the version spoken with a key: the next downgrade is not announced.
//   - a private contact: under a rule that demands encryption nothing follows from it. Under
//     other rules text would leave in clear after the crash while the person takes the
//     conversation for private; so nobody is told that it is before that is on disk
//     (oncePrivate).
//   - a private contact given up: the person is asked once more.

// A LineFile is one file of lines. It is guarded by the account's lock, but for disk.
type LineFile struct {
	what  string        // the log's word for what was not saved
	whole func() []byte // the file as it should be
	live  func() int    // its lines
	store *Store

	lines   int    // in the file and in queued
	queued  []byte // lines to be appended
	anew    bool   // the file is to be written anew
	Unsaved bool   // the last try failed: what is known is not what is on disk
	next    *Batch // of what is queued; nil for nothing
	present *Batch // of what is being written; nil for nothing

	disk lineDisk // the writer's alone
}

// A Batch is what is written at once.
type Batch struct {
	done  chan struct{}
	err   error    // set before done is closed
	asked bool     // somebody waits, and is told of a failure
	then  []func() // called with the account locked, once all is written or has failed
}

// After has f called with the account locked, once all is written or has failed.
func (b *Batch) After(f func()) { b.then = append(b.then, f) }

// A Store writes an account's files of lines.
type Store struct {
	mu    *sync.Mutex // the account's lock
	log   func(what string, err error)
	files []*LineFile
	busy  bool // its goroutine runs
	wrote int  // bytes, since the account was opened
}

// NewStore writes under an account's lock, and logs what could not be written.
func NewStore(mu *sync.Mutex, log func(what string, err error), files ...*LineFile) *Store {
	s := &Store{mu: mu, log: log, files: files}
	for _, f := range files {
		f.store = s
	}
	return s
}

// A file is written anew once it has more than stale lines for each that is live.
const (
	stale    = 2
	minLines = 64 // in a file that is worth it
)

// append queues a line.
func (f *LineFile) append(line []byte) {
	f.queued = append(f.queued, line...)
	f.lines++
	f.anew = f.anew || f.lines >= minLines && f.lines > stale*f.live()
	f.changed()
}

// rewrite queues that the file is written anew.
func (f *LineFile) rewrite() {
	f.anew = true
	f.changed()
}

func (f *LineFile) changed() {
	if f.next == nil {
		f.next = &Batch{done: make(chan struct{})}
	}
	if s := f.store; !s.busy {
		s.busy = true
		go s.work()
	}
}

// Pending is the Batch after which all that has changed so far is on disk, or has failed;
// nil where it is on disk. A file that could not be saved is tried again.
func (f *LineFile) Pending() *Batch {
	if f.Unsaved && f.next == nil && f.present == nil {
		f.rewrite()
	}
	if f.next != nil {
		return f.next
	}
	return f.present
}

// work writes until nothing is queued.
func (s *Store) work() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		i := slices.IndexFunc(s.files, func(f *LineFile) bool { return f.next != nil })
		if i < 0 {
			s.busy = false
			return
		}
		s.write(s.files[i])
	}
}

// write writes what is queued for a file.
func (s *Store) write(f *LineFile) {
	b := f.next
	f.present, f.next = b, nil
	n, err := 0, error(nil)
	anew := f.anew || f.Unsaved
	if !anew {
		lines := f.queued
		f.queued = nil
		s.unlocked(func() { n, err = f.disk.append(lines) })
		anew = errors.Is(err, errOther)
	}
	if anew {
		content := f.whole()
		f.queued, f.anew, f.lines = nil, false, f.live()
		s.unlocked(func() { n, err = len(content), f.disk.replace(content) })
	}
	s.wrote += n
	f.Unsaved, f.present = err != nil, nil
	b.err = err
	close(b.done)
	if err != nil && !b.asked {
		s.log(f.what, Cause(err))
	}
	for _, then := range b.then {
		then()
	}
}

func (s *Store) unlocked(f func()) {
	s.mu.Unlock()
	defer s.mu.Lock()
	f()
}

// AllSaved waits until what has changed so far is on disk, and returns why it is not.
func (s *Store) AllSaved() (err error) {
	for _, f := range s.files {
		err = errors.Join(err, s.Saved(f, false))
	}
	return err
}

// Saved is allSaved for one file. Asked says that somebody waits, and is told of a failure.
func (s *Store) Saved(f *LineFile, asked bool) error {
	s.mu.Lock()
	b := f.Pending()
	if b != nil {
		b.asked = b.asked || asked
	}
	s.mu.Unlock()
	if b == nil {
		return nil
	}
	<-b.done
	return b.err
}

// Pause has nothing written until it is resumed. Tests look at what holds meanwhile.
func (s *Store) Pause() (resume func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = true
	return s.work
}

// A lineDisk is a file of lines on the disk. It is for one goroutine at a time.
type lineDisk struct {
	dir, name string
	seen      fs.FileInfo // as it was left; nil where it is not there, or not to be appended to
}

// errOther says that a file is not as it was left: somebody has put another one in its
// place, or the last write was torn. What is known here comes in its place.
var errOther = errors.New("the file is another one")

func (d *lineDisk) path() string { return filepath.Join(d.dir, d.name) }

// read is what is in the file: its lines, and what follows the last of them, which was torn
// or has been written by hand.
func (d *lineDisk) read() (lines, torn []byte, err error) {
	file, err := os.Open(d.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return nil, nil, err
	}
	whole := bytes.LastIndexByte(content, '\n') + 1
	if whole == len(content) && int64(whole) == st.Size() {
		d.seen = st
	}
	return content[:whole], content[whole:], nil
}

// count is how many lines there are.
func count(lines []byte) int { return bytes.Count(lines, []byte("\n")) }

// append adds lines to the file, where it is as it was left.
func (d *lineDisk) append(lines []byte) (n int, err error) {
	st, err := os.Lstat(d.path())
	if err != nil || d.seen == nil || !st.Mode().IsRegular() || !os.SameFile(st, d.seen) || st.Size() != d.seen.Size() || !st.ModTime().Equal(d.seen.ModTime()) {
		return 0, errOther
	}
	was := d.seen.Size()
	d.seen = nil
	file, err := os.OpenFile(d.path(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return 0, fmt.Errorf("%s could not be saved: %w", d.path(), err)
	}
	defer file.Close()
	if n, err = file.Write(lines); err == nil {
		err = file.Sync()
	}
	if err == nil {
		st, err = file.Stat()
	}
	if err != nil {
		file.Truncate(was) // else the next start does not read what is torn
		return n, fmt.Errorf("%s could not be saved: %w", d.path(), err)
	}
	d.seen = st
	return n, nil
}

// replace writes the file anew.
func (d *lineDisk) replace(content []byte) error {
	d.seen = nil
	if err := Write(d.dir, d.name, content); err != nil {
		return err
	}
	if st, err := os.Lstat(d.path()); err == nil && st.Size() == int64(len(content)) {
		d.seen = st
	}
	return nil
}

// Exists reports whether there is a file of a name, encrypted or not.
func Exists(dir, name string) bool {
	for _, suffix := range []string{"", SealedSuffix} {
		if _, err := os.Lstat(filepath.Join(dir, name+suffix)); err == nil {
			return true
		}
	}
	return false
}
