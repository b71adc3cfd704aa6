package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rsc.io/qr"

	"otrproxy/proxy/control/commands"
)

// typed runs a word of the command line with standard input.
func typed(in string, words ...string) (string, error) {
	var out bytes.Buffer
	root := rootCommand(terminal{strings.NewReader(in), &out, io.Discard})
	root.SetArgs(words)
	err := root.Execute()
	return out.String(), err
}

// The manual pages, the completion and the help are made of the table: each command is in
// them.
func TestManualAndCompletion(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	if _, err := typed("", "man", dir); err != nil {
		t.Fatal(err)
	}
	completion, err := typed("", "completion", "bash")
	if err != nil || !strings.Contains(completion, "__complete") {
		t.Errorf("%v", err)
	}
	table := commands.Words()
	for i := range table {
		c := &table[i]
		if c.Name == "help" {
			continue
		}
		page, err := os.ReadFile(filepath.Join(dir, "otrproxy-"+strings.ReplaceAll(c.Name, " ", "-")+".1"))
		if err != nil || !bytes.Contains(page, []byte(c.Help[:20])) {
			t.Errorf("%s: %v", c.Name, err)
		}
		out, err := typed("", append([]string{"__complete"}, append(strings.Fields(c.Name)[:len(strings.Fields(c.Name))-1], "")...)...)
		if last := strings.Fields(c.Name)[len(strings.Fields(c.Name))-1]; err != nil || !strings.Contains(out, last+"\t") {
			t.Errorf("%s is not completed: %v %s", c.Name, err, out)
		}
	}
}

// What is wrong is wrong usage, and no secret is taken from the command line or said back.
func TestWrongWords(t *testing.T) {
	for _, words := range [][]string{{"smp", "answer", "a@b", "c@d", "hunter2"}, {"smp", "start", "a@b", "c@d", "hunter2", "hunter2"}, {"key", "unlock", "hunter2"}, {"key", "passphrase", "hunter2"}} {
		_, err := typed("x\n", words...)
		if _, ok := err.(wrongUsage); !ok || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", words, err)
		}
	}
	if _, err := typed("", "smp", "start", "a@b", "c@d"); err == nil || !strings.Contains(err.Error(), "standard input") {
		t.Errorf("%v", err)
	}
}

// A drawn code has the modules of the code, two rows to a line, and light around it.
func TestDrawQR(t *testing.T) {
	const text = "xmpp:alice@example.org?otr-fingerprint=0123456789abcdef0123456789abcdef01234567"
	drawn, err := drawQR(text)
	if err != nil {
		t.Fatal(err)
	}
	code, _ := qr.Encode(text, qr.L)
	lines := strings.Split(strings.TrimSuffix(drawn, "\n"), "\n")
	if len(lines) != (code.Size+4+1)/2 {
		t.Fatalf("%d lines for %d modules", len(lines), code.Size)
	}
	for y, line := range lines {
		for x, r := range []rune(line) {
			upper, lower := r == ' ' || r == '▄', r == ' ' || r == '▀'
			if row := 2*y - 2; upper != code.Black(x-2, row) || row+1 < code.Size+2 && lower != code.Black(x-2, row+1) {
				t.Fatalf("at %d, %d: %q", x, y, r)
			}
		}
	}
	if _, err := drawQR(strings.Repeat("x", 5000)); err == nil {
		t.Error("no error for what does not fit")
	}
}

// What others may have written does not move the cursor.
func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[2Jb\u009b2Jc\u2028d\u202ee\nf\tg\xff"); got != "a[2Jb2Jcde\nf\tg" {
		t.Errorf("%q", got)
	}
}
