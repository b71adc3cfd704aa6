package otrlayer

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// Plain text leaves by decide's word alone: nothing else in this package says Plain, but to ask
// whether it was said.
func TestPlainTextLeavesByDecideAlone(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil || len(names) == 0 {
		t.Fatal(err)
	}
	said := map[string]int{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		asked := map[*ast.Ident]bool{}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CaseClause:
				for _, e := range n.List {
					if id, ok := e.(*ast.Ident); ok {
						asked[id] = true
					}
				}
			case *ast.BinaryExpr:
				for _, e := range []ast.Expr{n.X, n.Y} {
					if id, ok := e.(*ast.Ident); ok && (n.Op == token.EQL || n.Op == token.NEQ) {
						asked[id] = true
					}
				}
			case *ast.SelectorExpr: // another package's
				asked[n.Sel] = true
			case *ast.ValueSpec:
				for _, id := range n.Names {
					asked[id] = true
				}
			case *ast.Ident:
				if n.Name == "Plain" && !asked[n] {
					said[name]++
				}
			}
			return true
		})
	}
	if len(said) != 1 || said["decide.go"] == 0 {
		t.Errorf("who says Plain: %v", said)
	}
}

// What a message carries and what the rule says are all that lets it leave in clear: each content
// under each policy, with a conversation that was never private, and with one that was.
func TestDecideContents(t *testing.T) {
	for _, c := range []struct {
		what  Content
		rule  Rule
		once  bool // it was private once
		plain bool
	}{
		{Filtered, Rule{Policy: Require}, true, true},
		{Other, Rule{Policy: Require}, false, false}, {Other, Rule{Policy: RequireVerified}, false, false},
		{Other, Rule{Policy: Manual}, false, true}, {Other, Rule{Policy: Manual}, true, false},
		{Other, Rule{Policy: Opportunistic}, false, true}, {Other, Rule{Policy: Opportunistic}, true, false},
		{Other, Rule{Policy: Never}, true, true}, {Typed, Rule{Policy: Never}, true, true},
		{InRoom, Rule{Policy: Require}, false, false}, {InRoom, Rule{Policy: Require, Rooms: true}, false, true},
		{InRoom, Rule{Policy: Manual}, false, true}, {InRoom, Rule{Policy: Manual}, true, false}, {InRoom, Rule{Policy: Manual, Rooms: true}, true, true},
		{Typed, Rule{Policy: Require}, false, false}, {Typed, Rule{Policy: Manual}, false, true}, {Typed, Rule{Policy: Manual}, true, false},
		{Content(99), Rule{Policy: Manual}, false, false}, {Content(99), Rule{}, false, false},
	} {
		alice, _ := couple(t)
		m := &Message{Contact: "bob@y", To: "bob@y", Text: "hello"}
		alice.a.mu.Lock()
		conv := alice.a.conv("bob@y")
		if c.once {
			conv.state = StateFinished
		}
		action, cause := alice.a.decide(m, c.rule, c.what)
		conv.state = ""
		conv.settle(alice.a.now())
		alice.a.mu.Unlock()
		if (action == Plain) != c.plain || action == Block && cause == CauseNone {
			t.Errorf("%+v: %v %q", c, action, cause)
		}
	}
}

// A message that was written under one rule, and has waited for the account while a stricter one
// came into force, does not leave in clear.
func TestStricterRuleHoldsAtOnce(t *testing.T) {
	alice, _ := couple(t)
	alice.policy = Require
	old := Rule{Policy: Manual, Rooms: true, Holds: func() bool { return false }}
	if v := alice.a.Send(alice, Message{Contact: "bob@y", To: "bob@y", ID: "1", Text: "hello"}, old); v.Action() != Held {
		t.Errorf("a text: %v, %q", v.Action(), v.Cause())
	}
	for _, what := range []Content{Other, InRoom} {
		if cause := alice.a.Pass(alice, &Message{Contact: "bob@y", To: "bob@y", Raw: []byte("<message/>")}, old, what); cause != CauseUnprotected {
			t.Errorf("content %d: %q", what, cause)
		}
	}
	alice.policy = Never // a laxer one holds for what is written from now on
	old.Policy = Require
	if v := alice.a.Send(alice, Message{Contact: "bob@y", To: "bob@y", ID: "2", Text: "hello"}, old); v.Action() == Plain {
		t.Error("what was written under require has left in clear")
	}
}

// What asks a guest for a decision about a key gets an answer: it has no files to wait for.
func TestGuestKeepsNoKeys(t *testing.T) {
	alice, _ := couple(t)
	if was, err := alice.a.Guest().Distrust("bob@y"); was || err != nil {
		t.Errorf("it had trusted: %v, %v", was, err)
	}
}
