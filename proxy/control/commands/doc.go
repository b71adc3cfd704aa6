// Package commands is what the words of the command table do. A Desk answers them: it asks the
// owners of what the proxy knows, and says in words and in data what they have answered. The
// doctor and the names of the commands need no running proxy.
//
// Owned here: one change of the passphrase at a time, and nothing else.
//
// It must not know streams of XML: how a command was asked for, and how its answer looks there,
// is relay's and package control's business.
package commands
