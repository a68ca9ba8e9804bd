# The processor system of a Zynq UltraScale+: one clock and reset for the logic, a port for control,
# one to the memory, and interrupts. The board's own files set the rest where they are installed.

# What Vivado's parameters call slave ports 2 to 5 are the high-performance ports 0 to 3.
set port [expr {$dma_port + 2}]
set ps_slave ps/S_AXI_HP${dma_port}_FPD
set ps_slave_segments ps/SAXIGP$port/*
set ps_memory HP${dma_port}_DDR_LOW
set ps_master ps/M_AXI_HPM0_FPD
set ps_clock ps/pl_clk0
set ps_reset ps/pl_resetn0
set ps_irq ps/pl_ps_irq0
set ps_port_clocks [list ps/maxihpm0_fpd_aclk ps/saxihp${dma_port}_fpd_aclk]

set ps [add ps [newest zynq_ultra_ps_e]]
if {[get_property BOARD_PART [current_project]] ne ""} {
    apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e \
        -config {apply_board_preset 1} $ps
} elseif {[llength $ps_config]} {
    set_property -dict $ps_config $ps
}
# A board's preset may have other ports, whose clocks would be missing.
set_property -dict [list \
    CONFIG.PSU__FPGA_PL0_ENABLE 1 \
    CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ $clock_mhz \
    CONFIG.PSU__USE__FABRIC__RST 1 \
    CONFIG.PSU__USE__M_AXI_GP0 1 \
    CONFIG.PSU__USE__M_AXI_GP1 0 \
    CONFIG.PSU__USE__M_AXI_GP2 0 \
    CONFIG.PSU__USE__S_AXI_GP$port 1 \
    CONFIG.PSU__USE__IRQ0 1 \
] $ps
