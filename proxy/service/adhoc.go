package service

import (
	"context"
	"slices"
	"strings"

	"otrproxy/proxy/control"
	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// Commands in a client's menus (XEP-0050): the table, rendered as forms (XEP-0004). No
// state is kept between the steps: a form carries all that its command needs.

// adHoc runs one step of a command: without a form filled in, it is the first, and
// answers with one where there is anything to fill in.
func (c *Contact) adHoc(root, el stanza.Element) {
	cmd := c.client.Commands().Get(el.Attr("node"))
	switch {
	case cmd == nil:
		c.client.Refuse(root, stanza.Error{Type: "cancel", Condition: "item-not-found", Text: "There is no such command; see the list of commands."})
		return
	case !cmd.May(c.client.Actor(control.InMenu)):
		_, err := c.client.Commands().Run(c.service.ctx, c.client.Actor(control.InMenu), cmd.Name, nil)
		c.client.Refuse(root, stanza.Error{Type: "auth", Condition: "forbidden", Text: control.Sentence(err)})
		return
	}
	id := el.Attr("sessionid")
	if id == "" {
		id = leg.NewID()
	}
	form, submitted := el.Child(nsData, "x")
	fields := cmd.Fields(c.client.Actor(control.InMenu), c.known(cmd))
	switch action := el.Attr("action"); {
	case action == "cancel":
		c.step(root, cmd, id, "canceled", "", "", nil)
		return
	case action == "prev":
		c.client.Refuse(root, stanza.Error{Type: "modify", Condition: "bad-request", Text: "There is no step before this one."})
		return
	case !submitted && len(fields) > 0, submitted && form.Attr("type") != "submit":
		c.step(root, cmd, id, "executing", "", "", fields)
		return
	}
	if submitted && !filledIn(form, fields) && slices.ContainsFunc(fields, control.Field.Required) {
		// Psi+ leaves its button there when a command is done, and sends the answer back.
		c.step(root, cmd, id, "completed", "info", "There is nothing more to do; close this window.", nil)
		return
	}
	args := map[string]string{}
	for i := range fields {
		if v, ok := FormValue(form, fields[i].Name, submitted); ok {
			args[fields[i].Name] = v
			if fields[i].Kind != control.Secret {
				fields[i].Value = v
			}
		}
	}
	ctx, cancel := context.WithTimeout(c.service.ctx, control.CommandLimit)
	defer cancel()
	reply, err := c.client.Commands().Run(ctx, c.client.Actor(control.InMenu), cmd.Name, args)
	switch {
	case err != nil && len(fields) > 0: // to be filled in again
		c.step(root, cmd, id, "executing", "error", control.Sentence(err), fields)
	case err != nil:
		c.step(root, cmd, id, "completed", "error", control.Sentence(err), nil)
	default:
		c.step(root, cmd, id, "completed", "info", reply.Text, nil)
	}
}

// filledIn reports whether a form has any of a command's fields.
func filledIn(form stanza.Element, fields []control.Field) bool {
	return slices.ContainsFunc(fields, func(f control.Field) bool {
		_, ok := FormValue(form, f.Name, true)
		return ok
	})
}

// known is what a form can be filled in with: the one contact there is something to do
// about, where there is but one.
func (c *Contact) known(cmd *control.Command) map[string]string {
	talking := c.client.Talking()
	if len(talking) != 1 || !slices.ContainsFunc(cmd.Args, func(x control.Arg) bool { return x.Kind == control.Contact && !x.Optional }) {
		return nil
	}
	return map[string]string{"contact": talking[0]}
}

// FormValue is a field of a form that was filled in (XEP-0004), several values a line each; a
// boolean that is not set is empty. Of a form that was not submitted there is none.
func FormValue(form stanza.Element, name string, submitted bool) (string, bool) {
	if !submitted {
		return "", false
	}
	for f := range form.Children() {
		if !f.Is(nsData, "field") || f.Attr("var") != name {
			continue
		}
		var lines []string
		for v := range f.Children() {
			if v.Is(nsData, "value") {
				lines = append(lines, v.Text())
			}
		}
		value := strings.Join(lines, "\n")
		if f.Attr("type") == "boolean" && (value == "0" || value == "false") {
			value = ""
		}
		return value, true
	}
	return "", false
}

// fieldTypes are XEP-0004's, for the kinds of arguments.
var fieldTypes = map[control.Kind]string{control.Contact: "jid-single", control.Account: "jid-single", control.Secret: "text-private", control.Flag: "boolean"}

// Notes say only whether a command was done: Psi+ shows none beside a form, Gajim shows
// a green tick where there is a note alone, whatever it says, and both show a text twice
// that stands in a note as well. So the words always stand in a form.
var notes = map[string]string{"info": "Done.", "error": "Not done."}

// step answers with a form to fill in, or with how the command went.
func (c *Contact) step(root stanza.Element, cmd *control.Command, id, status, note, text string, fields []control.Field) {
	c.answer(root, func(b []byte) []byte {
		b = append(b, "<command xmlns='"+nsCommands+"'"...)
		b = stanza.AppendAttr(stanza.AppendAttr(stanza.AppendAttr(b, "node", cmd.Name), "sessionid", id), "status", status)
		b = append(b, '>')
		kind := "result"
		if status == "executing" {
			kind = "form"
			b = append(b, "<actions execute='complete'><complete/></actions>"...)
			switch note {
			case "":
				text = cmd.Title() + "."
			case "error": // a note beside a form is not shown everywhere
				text = notes[note] + " " + text
			}
		}
		if note != "" {
			b = append(stanza.AppendAttr(append(b, "<note"...), "type", note), ">"+notes[note]+"</note>"...)
		}
		if status != "canceled" {
			b = append(b, "<x xmlns='"+nsData+"' type='"+kind+"'><title>"...)
			b = append(stanza.AppendEscaped(b, cmd.Name), "</title>"...)
			if kind == "form" || !strings.Contains(text, "\n") {
				b = append(stanza.AppendEscaped(append(b, "<instructions>"...), text), "</instructions>"...)
			} else {
				b = append(b, "<field var='result' type='text-multi' label='Answer'>"...)
				for line := range strings.Lines(text) {
					b = append(stanza.AppendEscaped(append(b, "<value>"...), strings.TrimRight(line, "\n")), "</value>"...)
				}
				b = append(b, "</field>"...)
			}
			for _, f := range fields {
				b = appendField(b, f)
			}
			b = append(b, "</x>"...)
		}
		return append(b, "</command>"...)
	})
}

func appendField(b []byte, f control.Field) []byte {
	typ := fieldTypes[f.Kind]
	if typ == "" {
		typ = "text-single"
	}
	b = stanza.AppendAttr(stanza.AppendAttr(stanza.AppendAttr(append(b, "<field"...), "var", f.Name), "type", typ), "label", f.Label())
	b = append(b, '>')
	if f.Required() {
		b = append(b, "<required/>"...)
	}
	if f.Value != "" {
		b = append(stanza.AppendEscaped(append(b, "<value>"...), f.Value), "</value>"...)
	}
	return append(b, "</field>"...)
}
