package control

import "strings"

// A Field is an argument as a form asks for it. Ad-hoc commands and the page make
// their forms of these.
type Field struct {
	Arg
	Value string // what is known already
}

// Label is what stands beside the field.
func (f Field) Label() string {
	if f.Arg.Label != "" {
		return f.Arg.Label
	}
	return strings.ToUpper(f.Name[:1]) + f.Name[1:]
}

// Input is how a page asks for the field: password, checkbox or text.
func (f Field) Input() string {
	switch f.Kind {
	case Secret:
		return "password"
	case Flag:
		return "checkbox"
	}
	return "text"
}

// Required reports whether the command does nothing without the field.
func (f Field) Required() bool { return !f.Optional && f.Kind != Flag && f.Kind != Option }

// Fields are those somebody has to fill in, with what is known already.
func (c *Command) Fields(a Actor, known map[string]string) (fields []Field) {
	for _, x := range c.Args {
		if x.Kind == Account && a.Account != "" {
			continue
		}
		f := Field{Arg: x, Value: known[x.Name]}
		if x.Kind == Contact && f.Value == "" {
			f.Value = a.Contact
		}
		if x.Kind == Secret {
			f.Value = "" // never given back
		}
		fields = append(fields, f)
	}
	return fields
}

// Title is what a command does, as a sentence without its end.
func (c *Command) Title() string {
	return strings.ToUpper(c.Help[:1]) + c.Help[1:]
}

// Entry is a command in a menu: its name, and what it does in short.
func (c *Command) Entry() string {
	short := c.Help
	if i := strings.IndexAny(short, ",;:."); i > 0 {
		short = short[:i]
	}
	return c.Name + ": " + short
}
