# Makes the block design: processor system, AXI DMA, the core, and what joins them.
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

# No scatter-gather: a transfer is a piece of memory, of up to 64 MiB less one byte.
add axi_dma [newest axi_dma] \
    CONFIG.c_include_sg 0 \
    CONFIG.c_sg_length_width 26 \
    CONFIG.c_m_axis_mm2s_tdata_width $stream_bits \
    CONFIG.c_m_axi_mm2s_data_width $memory_bits \
    CONFIG.c_m_axi_s2mm_data_width $memory_bits \
    CONFIG.c_mm2s_burst_size 16 \
    CONFIG.c_s2mm_burst_size 16
# PYNQ's overlays have it as an attribute of this name.
add trainer $ip_vendor:$ip_library:$ip_name:$ip_version
add control [newest smartconnect] CONFIG.NUM_SI 1 CONFIG.NUM_MI 2
add memory [newest smartconnect] CONFIG.NUM_SI 2 CONFIG.NUM_MI 1
add resets [newest proc_sys_reset]
add interrupts [newest xlconcat] CONFIG.NUM_PORTS 3

wire $ps_clock {*}$ps_port_clocks resets/slowest_sync_clk control/aclk memory/aclk \
    axi_dma/s_axi_lite_aclk axi_dma/m_axi_mm2s_aclk axi_dma/m_axi_s2mm_aclk trainer/aclk
wire $ps_reset resets/ext_reset_in
wire resets/peripheral_aresetn control/aresetn memory/aresetn axi_dma/axi_resetn trainer/aresetn

link $ps_master control/S00_AXI
link control/M00_AXI axi_dma/S_AXI_LITE
link control/M01_AXI trainer/s_axi_ctrl
link axi_dma/M_AXI_MM2S memory/S00_AXI
link axi_dma/M_AXI_S2MM memory/S01_AXI
link memory/M00_AXI $ps_slave
link axi_dma/M_AXIS_MM2S trainer/s_axis
link trainer/m_axis axi_dma/S_AXIS_S2MM

wire axi_dma/mm2s_introut interrupts/In0
wire axi_dma/s2mm_introut interrupts/In1
wire trainer/irq interrupts/In2
wire interrupts/dout $ps_irq

# Drivers rely on these addresses.
assign_bd_address -offset $dma_address -range $dma_bytes \
    -target_address_space [get_bd_addr_spaces ps/Data] \
    [get_bd_addr_segs axi_dma/S_AXI_LITE/Reg]
assign_bd_address -offset $core_address -range $ip_register_bytes \
    -target_address_space [get_bd_addr_spaces ps/Data] \
    [get_bd_addr_segs trainer/s_axi_ctrl/reg0]

give_memory axi_dma/Data_MM2S
give_memory axi_dma/Data_S2MM

validate_bd_design
save_bd_design
