package confine

import (
	"strings"
	"testing"
)

// A report is one line for people.
func TestReport(t *testing.T) {
	var r Report
	if r.String() != "nothing" {
		t.Errorf("%s", r)
	}
	r.has("files (Landlock ABI %d)", 7)
	r.has("no core dumps")
	r.lacks("system calls", errTest)
	if got := r.String(); got != "files (Landlock ABI 7), no core dumps; not in force: system calls (as a test)" {
		t.Error(got)
	}
}

type testError string

func (e testError) Error() string { return string(e) }

const errTest = testError("as a test")

// What can be had is said without doing it: twice the same, and the process stays free.
func TestAvailable(t *testing.T) {
	first := Available()
	if again := Available(); again.String() != first.String() || len(first.InForce)+len(first.Missing) < 3 {
		t.Errorf("%s, then %s", first, again)
	}
	if first.Whole != !strings.Contains(first.String(), "no Landlock") && !first.Whole {
		t.Errorf("%s", first)
	}
}
