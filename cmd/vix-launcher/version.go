package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"vix/internal/agent"
	"vix/internal/vm"
)

// versions is what the verb version prints.
type versions struct {
	Version   string `json:"version"`
	Go        string `json:"go"`
	Platform  string `json:"platform"` // GOOS/GOARCH
	Protocols struct {
		Control int `json:"control"` // between vix and a VM's supervisor
		Agent   int `json:"agent"`   // between the supervisor and its guest
	} `json:"protocols"`
}

func versionCommand(e *env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version [--json]",
		Short: "print the version of Vix",
		Long: `Prints the versions of Vix, of the Go that built it, and of the protocols that it
speaks: with a VM's supervisor (control), and between that and its guest (agent).

With --json, prints an object: version, go, platform, protocols {control, agent}.`,
		Example: `  vix version
  vix version --json | jq -r .version`,
		Args:              args(0, 0, ""),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			v := versions{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			v.Protocols.Control, v.Protocols.Agent = vm.ControlVersion, agent.Version
			if asJSON {
				return printJSON(e.stdout, v)
			}
			_, err := fmt.Fprintf(e.stdout, "vix %s\n%s %s\ncontrol protocol %d, agent protocol %d\n",
				v.Version, v.Go, v.Platform, v.Protocols.Control, v.Protocols.Agent)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
