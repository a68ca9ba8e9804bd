# The processor system of a Zynq-7000: one clock and reset for the logic, a port for control, one to
# the memory, and interrupts. The board's own files set the rest where they are installed.

set ps_slave ps/S_AXI_HP$dma_port
set ps_slave_segments ps/S_AXI_HP$dma_port/*
set ps_memory HP${dma_port}_DDR_LOWOCM
set ps_master ps/M_AXI_GP0
set ps_clock ps/FCLK_CLK0
set ps_reset ps/FCLK_RESET0_N
set ps_irq ps/IRQ_F2P
set ps_port_clocks [list ps/M_AXI_GP0_ACLK ps/S_AXI_HP${dma_port}_ACLK]

set ps [add ps [newest processing_system7]]
set preset [expr {[get_property BOARD_PART [current_project]] ne ""}]
apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 \
    -config [list make_external "FIXED_IO, DDR" apply_board_preset $preset \
        Master Disable Slave Disable] $ps
if {!$preset && [llength $ps_config]} {
    set_property -dict $ps_config $ps
}
set_property -dict [list \
    CONFIG.PCW_EN_CLK0_PORT 1 \
    CONFIG.PCW_EN_RST0_PORT 1 \
    CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ $clock_mhz \
    CONFIG.PCW_USE_M_AXI_GP0 1 \
    CONFIG.PCW_USE_S_AXI_HP$dma_port 1 \
    CONFIG.PCW_USE_FABRIC_INTERRUPT 1 \
    CONFIG.PCW_IRQ_F2P_INTR 1 \
] $ps
