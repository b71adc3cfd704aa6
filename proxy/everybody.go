package proxy

// everybody are the sessions, by account. Proxy.mu guards it.
type everybody struct {
	of map[string]map[*session]struct{}
	n  int
}

func (e *everybody) add(s *session) {
	if e.of == nil {
		e.of = map[string]map[*session]struct{}{}
	}
	if e.of[s.jid] == nil {
		e.of[s.jid] = map[*session]struct{}{}
	}
	e.of[s.jid][s] = struct{}{}
	e.n++
}

func (e *everybody) remove(s *session) {
	delete(e.of[s.jid], s)
	if len(e.of[s.jid]) == 0 {
		delete(e.of, s.jid)
	}
	e.n--
}

// all are those of an account, or of all accounts for "".
func (e *everybody) all(jid string) (out []*session) {
	if jid != "" {
		for s := range e.of[jid] {
			out = append(out, s)
		}
		return out
	}
	for _, of := range e.of {
		for s := range of {
			out = append(out, s)
		}
	}
	return out
}
