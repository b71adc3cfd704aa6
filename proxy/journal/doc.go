// Package journal is the log, in which nobody is named: JIDs are hashed under a key of this run,
// unless the configuration asks for them in clear. It must not be given what anybody wrote.
package journal
