# Places and routes the core alone, without a processor system or pins: what it takes of the part, and
# how fast it is.
#
#   vivado -mode batch -source out_of_context.tcl

set here [file dirname [file normalize [info script]]]
source [file join $here settings.tcl]

read_verilog [file join $here .. ip $ip_name.v]
read_xdc -mode out_of_context [file join $here out_of_context.xdc]
synth_design -top $ip_name -part $part -mode out_of_context
opt_design
place_design
phys_opt_design
route_design

set reports [file join $here reports_out_of_context]
file mkdir $reports
report_utilization -file [file join $reports utilization.rpt]
report_timing_summary -max_paths 10 -file [file join $reports timing_summary.rpt]
report_power -file [file join $reports power.rpt]
write_checkpoint -force [file join $here out_of_context.dcp]
puts "streamtrain: routed $ip_name out of context"
