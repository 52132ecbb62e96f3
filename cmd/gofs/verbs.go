package main

import "github.com/spf13/cobra"

// verbs make the commands below gofs, in the order of its help.
var verbs = []func(*globals) *cobra.Command{
	newImportCmd,
	newLsCmd,
	newRmCmd,
	newGcCmd,
	newVerifyCmd,
	newStatsCmd,
	newMountCmd,
	newUmountCmd,
	newExportCmd,
	newVersionCmd,
}
