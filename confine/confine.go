// Package confine takes from the process what a proxy does not need, so that whoever
// gets a foothold in it (by a bug in a parser, say) reaches neither the machine nor the
// keys of other programs.
//
//	cores_*.go        no core dumps, no debugger: first of all, before there is a secret
//	confine_linux.go  the whole of it, once everything that needs more has been opened
//	landlock_linux.go which files (Landlock)
//	seccomp_linux.go  which system calls (seccomp)
//	memory_linux.go   memory that is never written to swap
//
// It is a one-way street: nothing here can be undone. On other systems than Linux there
// is what Cores does, and no more; what is missing is said.
package confine

import (
	"fmt"
	"strings"
)

// Paths are the files that the process goes on to use, besides those of the system that
// any network program reads.
type Paths struct {
	State string   // directory that is read and written
	Read  []string // directories, with all below them, and files that are read
}

// A Report says what holds the process, and what does not, in words for people.
type Report struct {
	InForce []string
	Missing []string // and why
	Whole   bool     // files and system calls are both confined
	Alone   bool     // no program can be started
}

func (r Report) String() string {
	text := strings.Join(r.InForce, ", ")
	if text == "" {
		text = "nothing"
	}
	if len(r.Missing) > 0 {
		text += "; not in force: " + strings.Join(r.Missing, ", ")
	}
	return text
}

func (r *Report) has(format string, args ...any) {
	r.InForce = append(r.InForce, fmt.Sprintf(format, args...))
}

func (r *Report) lacks(what string, why error) {
	r.Missing = append(r.Missing, fmt.Sprintf("%s (%v)", what, why))
}
