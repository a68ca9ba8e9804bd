# From the Verilog file to a bitstream with its reports:
#
#   vivado -mode batch -source build.tcl
#
# streamtrain.bit and .hwh are what PYNQ loads, streamtrain.xsa is for Vitis and PetaLinux.

set here [file dirname [file normalize [info script]]]
source [file join $here settings.tcl]
source [file join $here .. ip package_ip.tcl]

create_project -force streamtrain [file join $here project] -part $part
if {$board_part ne ""} {
    set found [get_board_parts -quiet -latest_file_version $board_part:*]
    if {[llength $found]} {
        set_property board_part [lindex $found 0] [current_project]
    } else {
        puts "WARNING: streamtrain: no board files for $board_part are installed. The bitstream\
            suits a system that has booted, such as PYNQ; do not make a boot image of the .xsa."
    }
}
set_property ip_repo_paths [list [file join $here .. ip]] [current_project]
update_ip_catalog -rebuild

source [file join $here block_design.tcl]
set design_file [get_files $design.bd]
generate_target all $design_file
add_files -norecurse [make_wrapper -files $design_file -top]
set_property top ${design}_wrapper [current_fileset]
update_compile_order -fileset sources_1

proc finish {run} {
    wait_on_runs $run
    if {[get_property PROGRESS [get_runs $run]] ne "100%"} {
        error "streamtrain: $run did not finish: [get_property STATUS [get_runs $run]]"
    }
}

launch_runs synth_1 -jobs $jobs
finish synth_1
launch_runs impl_1 -to_step write_bitstream -jobs $jobs
finish impl_1

open_run impl_1
set reports [file join $here reports]
file mkdir $reports
report_utilization -file [file join $reports utilization.rpt]
report_utilization -cells [get_cells ${design}_i/trainer] \
    -file [file join $reports utilization_core.rpt]
report_timing_summary -max_paths 10 -file [file join $reports timing_summary.rpt]
report_power -file [file join $reports power.rpt]

set project [file join $here project]
file copy -force [file join $project streamtrain.runs impl_1 ${design}_wrapper.bit] \
    [file join $here streamtrain.bit]
file copy -force [file join $project streamtrain.gen sources_1 bd $design hw_handoff $design.hwh] \
    [file join $here streamtrain.hwh]
write_hw_platform -fixed -include_bit -force [file join $here streamtrain.xsa]
puts "streamtrain: built [file join $here streamtrain.bit]"
