package main

import "github.com/spf13/cobra"

// verbs make the commands below gofs, in the order of its help.
var verbs = []func(*globals) *cobra.Command{
	newImportCmd,
	newLsCmd,
	newRmCmd,
	newGcCmd,
	newCompactCmd,
	newVerifyCmd,
	newRepairCmd,
	newFingerprintCmd,
	newStatsCmd,
	newDiffCmd,
	newMountCmd,
	newUmountCmd,
	newMountStatsCmd,
	newWarmCmd,
	newExportCmd,
	newWhichCmd,
	newEnvCmd,
	newExecCmd,
	newUseCmd,
	newDefaultCmd,
	newShellInitCmd,
	newShimCmd,
	newLinkCmd,
	newLsRemoteCmd,
	newOutdatedCmd,
	newPruneCmd,
	newCheckCmd,
	newDoctorCmd,
	newPsCmd,
	newVersionCmd,
}
