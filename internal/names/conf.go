package names

import (
	"io"
	"net/netip"
	"os"
	"strings"
)

// Limits of resolv.conf(5): content beyond them is ignored, as by its other readers. The
// host's network may have written some of it.
const (
	maxServers = 3
	maxDomains = 6
	maxSearch  = 256      // bytes of the search list, with a space between domains
	maxFile    = 64 << 10 // bytes
)

// Search returns the search list of a resolv.conf(5), empty where there is none.
func Search(path string) []string { return readConf(path).search }

// A conf is the part of resolv.conf(5) that is used.
type conf struct {
	servers []netip.Addr
	search  []string // domains appended to short names
}

// readConf reads the file as far as it is readable.
func readConf(path string) (c conf) {
	file, err := os.Open(path)
	if err != nil {
		return c
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return c
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if addr, err := netip.ParseAddr(words[1]); err == nil && len(c.servers) < maxServers {
				c.servers = append(c.servers, addr)
			}
		case "domain": // the later of the two counts
			c.search = domainsIn(words[1:2])
		case "search":
			c.search = domainsIn(words[1:])
		}
	}
	return c
}

// domainsIn returns the words that are domains, within the limits.
func domainsIn(words []string) (list []string) {
	size := 0
	for _, word := range words {
		domain := strings.TrimSuffix(word, ".") // "." alone is the root, which adds nothing
		size += len(domain) + 1
		switch {
		case !isDomain(domain):
			size -= len(domain) + 1
		case len(list) == maxDomains || size > maxSearch:
			return list
		default:
			list = append(list, domain)
		}
	}
	return list
}

// isDomain reports whether a word can be a domain (RFC 1123, 2.1; also with "_", as in names of
// services). Such a word has no other meaning in a line of resolv.conf(5).
func isDomain(s string) bool {
	const maxDomain, maxLabel = 253, 63
	if len(s) > maxDomain {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return true
}
