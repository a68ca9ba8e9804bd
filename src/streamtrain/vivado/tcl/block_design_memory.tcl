# Makes the block design: processor system, the core, and what joins the core's memory port to the DRAM.
#
# Source it in a project for the board's part that has the folder ../ip among its ip_repo_paths;
# build.tcl does. All of it runs on one clock of the processor system.

set here [file dirname [file normalize [info script]]]
source [file join $here settings.tcl]
source [file join $here cells.tcl]

create_bd_design $design

# Makes the cell `ps`, and names its pins in ps_clock, ps_reset, ps_irq, ps_master, ps_slave, the
# clock inputs of the two ports in ps_port_clocks, and their memory in ps_memory.
source [file join $here processor.tcl]

# PYNQ's overlays have it as an attribute of this name.
add trainer $ip_vendor:$ip_library:$ip_name:$ip_version
add control [newest smartconnect] CONFIG.NUM_SI 1 CONFIG.NUM_MI 1
# Makes bursts and words of the core those that the processor system's port takes.
add memory [newest smartconnect] CONFIG.NUM_SI 1 CONFIG.NUM_MI 1
add resets [newest proc_sys_reset]

wire $ps_clock {*}$ps_port_clocks resets/slowest_sync_clk control/aclk memory/aclk trainer/aclk
wire $ps_reset resets/ext_reset_in
wire resets/peripheral_aresetn control/aresetn memory/aresetn trainer/aresetn

link $ps_master control/S00_AXI
link control/M00_AXI trainer/s_axi_ctrl
link trainer/m_axi memory/S00_AXI
link memory/M00_AXI $ps_slave

wire trainer/irq $ps_irq

# Drivers rely on this address.
assign_bd_address -offset $core_address -range $ip_register_bytes \
    -target_address_space [get_bd_addr_spaces ps/Data] \
    [get_bd_addr_segs trainer/s_axi_ctrl/reg0]

give_memory trainer/m_axi

validate_bd_design
save_bd_design
