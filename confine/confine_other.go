//go:build !linux

package confine

import "errors"

var errOther = errors.New("there is this on Linux only")

// Process reports that the process cannot be confined here, besides what Cores has done.
func Process(Paths) Report { return Available() }

// Available says what Process would find here.
func Available() Report {
	var r Report
	r.has("no core dumps")
	r.lacks("files and system calls", errOther)
	r.lacks("memory kept out of swap", errOther)
	return r
}

// ReleaseProgram does nothing here.
func ReleaseProgram() {}
