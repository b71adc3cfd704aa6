// Package readers asks the parsers of XMPP clients, each in a program of its own under
// clients/, what somebody at that client would be shown of a stanza: their own code
// takes it apart, and what the client looks up in the result is repeated there. A test
// that lets a server lie can so see who would believe it.
//
// A program reads lines of JSON, {"n":1,"xml":"<message .../>","room":""}, and answers
// each with {"n":1,"shown":[{"as":"message","from":"...","text":"..."}],"error":""}. All
// of them are alice@example.org/c at example.org, have carbons on and wait for an answer
// of their own archive to the query q.
package readers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"otrproxy/test/need"
)

// patience is how long a program may take for all stanzas of one call.
const patience = 2 * time.Minute

// Shown is a text that a client shows.
type Shown struct {
	// As is message: said in a conversation, a room or a dialogue; presence: the text of
	// somebody's status; name: what somebody or something is called; info: what is shown
	// of somebody when asked for; own: shown as the person's own words.
	As   string `json:"as"`
	From string `json:"from"` // whom the client names
	Text string `json:"text"`
}

// A Reader is one client's parser.
type Reader struct {
	Name string // of the library or program
	// AnyNamespace: the client takes a body of a namespace that is not the stream's.
	AnyNamespace bool

	mu    sync.Mutex
	stdin io.Writer
	lines chan string // what the program writes; closed at its end
	log   *logged
}

// logged is what a program complains of.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() < 1<<16 {
		l.b.Write(p)
	}
	return len(p), nil
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type program struct {
	name   string
	any    bool
	need   func(t testing.TB)
	source string // under clients/
	pkg    string // of pkg-config, for one in C
	run    string // what runs it, for one that is not
	args   []string
}

var programs = []program{
	{name: "nbxmpp", any: true, source: "nbxmpp_reader.py", run: need.Python, need: func(t testing.TB) { need.PythonModule(t, "nbxmpp") }},
	{name: "libstrophe", any: true, source: "strophe_reader.c", pkg: "libstrophe"},
	{name: "slixmpp", source: "slixmpp_reader.py", run: need.Python, need: func(t testing.TB) { need.PythonModule(t, "slixmpp") }},
	{name: "loudmouth", any: true, source: "loudmouth_reader.c", pkg: "loudmouth-1.0"},
	{name: "libpurple", source: "purple_reader.c", pkg: "purple"},
	{name: "Strophe.js", any: true, source: "strophe_reader.mjs", run: "node", need: func(t testing.TB) { modules(t, "strophe.js", "@xmldom/xmldom") }},
	{name: "Converse.js", any: true, source: "converse_reader.mjs", run: "node", args: []string{converse}, need: func(t testing.TB) {
		modules(t, "jsdom")
		if _, err := os.Stat(converse); err != nil {
			need.Missing(t, "converse.js (npm)")
		}
	}},
}

var (
	dir = clients()
	// converse is the build without pages that Converse.js comes with, where the browser
	// tests have it.
	converse = filepath.Join(dir, "..", "..", "browser", "node_modules", "converse.js", "src", "headless", "dist", "converse-headless.js")
)

// clients is the directory of the programs, whichever package's test runs.
func clients() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "clients")
}

func modules(t testing.TB, names ...string) {
	t.Helper()
	need.Program(t, "node")
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, "node_modules", name)); err != nil {
			need.Missing(t, name+" (npm)")
		}
	}
}

// All starts every reader, until the end of the test. A program that is missing is
// reported as need.Missing does.
func All(t testing.TB) []*Reader {
	t.Helper()
	all := make([]*Reader, len(programs))
	for i, p := range programs {
		all[i] = p.start(t)
	}
	return all
}

func (p program) start(t testing.TB) *Reader {
	t.Helper()
	var cmd *exec.Cmd
	if p.pkg != "" {
		cmd = exec.Command(p.build(t))
	} else {
		p.need(t)
		cmd = exec.Command(p.run, append([]string{filepath.Join(dir, p.source)}, p.args...)...)
	}
	cmd.Dir = t.TempDir() // what a library writes to where it runs, or to a home
	cmd.Env = append(os.Environ(), "HOME="+cmd.Dir, "XDG_CONFIG_HOME="+cmd.Dir, "XDG_DATA_HOME="+cmd.Dir, "XDG_CACHE_HOME="+cmd.Dir,
		"PYTHONDONTWRITEBYTECODE=1", "LC_ALL=C.UTF-8")
	return start(t, p, cmd)
}

func start(t testing.TB, p program, cmd *exec.Cmd) *Reader {
	t.Helper()
	r := &Reader{Name: p.name, AnyNamespace: p.any, lines: make(chan string), log: &logged{}}
	cmd.Stderr = r.log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	r.stdin = stdin
	ended := make(chan struct{})
	go func() {
		defer close(r.lines)
		lines := bufio.NewReader(stdout)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			select {
			case r.lines <- line:
			case <-ended:
				return
			}
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		cmd.Process.Kill() // it has nothing to finish
		close(ended)
		for range r.lines {
		}
		cmd.Wait()
	})
	return r
}

// build compiles a program in C.
func (p program) build(t testing.TB) string {
	t.Helper()
	need.Program(t, "cc", "pkg-config")
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", p.pkg).Output()
	if err != nil {
		need.Missing(t, p.pkg+" (its development files)")
	}
	binary := filepath.Join(t.TempDir(), strings.TrimSuffix(p.source, ".c"))
	args := append([]string{"-O1", "-Wall", "-Wextra", "-o", binary, filepath.Join(dir, p.source)}, strings.Fields(string(flags))...)
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", p.source, err, out)
	}
	return binary
}

// Read asks what is shown of each stanza by itself, and what the library says when it
// cannot read it. A room is one that the client is in.
func (r *Reader) Read(stanzas []string, room string) ([][]Shown, []string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	type request struct {
		N    int    `json:"n"`
		XML  string `json:"xml"`
		Room string `json:"room"`
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	for i, s := range stanzas {
		if err := e.Encode(request{i, s, room}); err != nil {
			return nil, nil, err
		}
	}
	written := make(chan error, 1)
	go func() {
		_, err := r.stdin.Write(out.Bytes())
		written <- err
	}()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	shown, errors := make([][]Shown, len(stanzas)), make([]string, len(stanzas))
	for i := range stanzas {
		var answer struct {
			N     int     `json:"n"`
			Shown []Shown `json:"shown"`
			Error string  `json:"error"`
		}
		select {
		case line, ok := <-r.lines:
			if !ok {
				return nil, nil, fmt.Errorf("%s ended at %s\n%s", r.Name, stanzas[i], r.log)
			}
			if err := json.Unmarshal([]byte(line), &answer); err != nil || answer.N != i {
				return nil, nil, fmt.Errorf("%s answers %q to %s (%v)", r.Name, line, stanzas[i], err)
			}
		case <-limit.C:
			return nil, nil, fmt.Errorf("%s does not answer to %s\n%s", r.Name, stanzas[i], r.log)
		}
		shown[i], errors[i] = answer.Shown, answer.Error
	}
	return shown, errors, <-written
}
